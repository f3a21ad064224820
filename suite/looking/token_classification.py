"""A look at token classification: words above their labels, tokens above the labels that alignment gave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import cast

from rich.console import RenderableType

from reference.pipelines.pipeline import Pipeline
from reference.pipelines.token_classification import TAGS, WORDS, TokenClassification
from suite.looking import common


def look(pipeline: Pipeline, *, samples: int, seed: int, batch_size: int, width: int) -> Iterator[RenderableType]:
    pipeline = cast(TokenClassification, pipeline)
    yield from common.features(pipeline, columns=(WORDS, TAGS))
    data = pipeline.source.examples("train", columns=(WORDS, TAGS))
    columns, names = pipeline.columns("train"), pipeline.names
    chosen = common.sample(len(data), count=samples, seed=seed)
    for row in chosen:
        example = data[row]
        yield common.heading(f"Train example {row}: words above their labels")
        if not example[WORDS]:
            yield from common.lines("(no words)")
        yield from common.in_columns([example[WORDS], [names[tag] for tag in example[TAGS]]], width=width, labels=1)
        yield common.heading(f"Train example {row}: tokens above their labels (strategy {pipeline.options.strategy})")
        labels = [spell(int(label), names=names) for label in columns["labels"][row]]
        yield from common.in_columns(
            [common.tokens_of(pipeline, columns["input_ids"][row]), labels], width=width, labels=1
        )
    yield from common.padded_batch(pipeline, common.sample(len(data), count=batch_size, seed=seed), width=width)
    yield from common.token_statistics(pipeline, batch_size=batch_size)
    for split in ("train", "validation"):
        yield common.heading(f"Labels in {split}")
        gold = pipeline.source.examples(split, columns=(WORDS, TAGS))[TAGS]
        words = Counter(dict.fromkeys(names, 0))
        words.update(names[tag] for tags in gold for tag in tags)
        tokens = Counter(spell(int(label), names=names) for label in common.ragged(pipeline, split, "labels").values)
        yield from common.counts([("words", words), ("tokens", tokens)], of="label")


def spell(label: int, *, names: list[str]) -> str:
    return str(label) if label == common.IGNORED else names[label]
