"""A look at translation and summarization: pairs of texts, their tokens, and what the decoder reads and is to write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from reference.pipelines.pipeline import FeatureRows, Pipeline
from reference.pipelines.seq2seq import Seq2Seq
from reference.ragged import Array
from suite.looking import common
from suite.looking.columns import set_in_columns, visible

SHOWN_CHARACTERS = 600
SHOWN_TOKENS = 80
"""Of a text: the rest of a long document says nothing new."""


def look(pipeline: Pipeline, *, samples: int, seed: int, batch_size: int, width: int) -> Iterator[RenderableType]:
    pipeline = cast(Seq2Seq, pipeline)
    yield from common.features(pipeline, columns=(pipeline.source_column, pipeline.target_column))
    sources, targets = pipeline.texts("train")
    chosen = common.sample(len(sources), count=samples, seed=seed)
    for row in chosen:
        for name, column, text in (
            (pipeline.source_column, "input_ids", sources[row]),
            (pipeline.target_column, "labels", targets[row]),
        ):
            ids = common.ragged(pipeline, "train", column)[row]
            yield common.heading(f"Train example {row}, {name}: {len(text):,} characters, {len(ids):,} tokens")
            yield Padding(Text(visible(_first(text))), (0, 0, 1, 2))
            yield from tokens(pipeline, ids, width=width)
    if chosen:
        yield common.heading(f"Train example {chosen[0]}: what the decoder reads, above what it is to write")
        yield from decoder(pipeline, chosen[0], width=width)
    rows = common.sample(len(sources), count=batch_size, seed=seed)
    yield from common.padded_batch(pipeline, rows, width=width)
    for name, column, limit in (
        (pipeline.source_column, "input_ids", pipeline.source_length),
        (pipeline.target_column, "labels", pipeline.target_length),
    ):
        yield from common.token_statistics(pipeline, batch_size=batch_size, column=column, of=name)
        for split in ("train", "validation"):
            lengths = common.ragged(pipeline, split, column).lengths
            full = int((lengths >= limit).sum())
            yield from common.lines(
                f"{split}: {full:,} of {len(lengths):,} have {limit} tokens, the most they may have, and may be cut off"
            )


def tokens(pipeline: Pipeline, ids: Array, *, width: int) -> Iterator[RenderableType]:
    spelt = common.tokens_of(pipeline, ids[:SHOWN_TOKENS])
    yield from set_in_columns([[*spelt, "..."] if len(ids) > SHOWN_TOKENS else spelt], width=width)


def decoder(pipeline: Seq2Seq, row: int, *, width: int) -> Iterator[RenderableType]:
    """The decoder's inputs above its labels, one step a column."""
    batch = pipeline.collate([FeatureRows(pipeline.columns("train"))[0, row]], train=True)
    reads, writes = (np.asarray(batch[name][0]) for name in ("decoder_input_ids", "labels"))
    yield from set_in_columns([common.tokens_of(pipeline, ids) for ids in (reads, writes)], width=width)


def _first(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."
