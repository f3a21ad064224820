"""A look at masked language modeling: texts, the chunks they are cut into, and what is hidden in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import cast

import numpy as np
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from reference.pipelines.masked_lm import TEXT, MaskedLM
from reference.pipelines.pipeline import FeatureRows, Pipeline
from suite.looking import common
from suite.looking.columns import set_in_columns, visible

SHOWN_CHARACTERS = 600


def look(pipeline: Pipeline, *, samples: int, seed: int, batch_size: int, width: int) -> Iterator[RenderableType]:
    pipeline = cast(MaskedLM, pipeline)
    yield from common.features(pipeline, columns=(TEXT,))
    data = pipeline.source.examples("train", columns=(TEXT,))
    for row in common.sample(len(data), count=samples, seed=seed):
        text = data[row][TEXT]
        length = common.token_count(pipeline, text)
        yield common.heading(f"Train document {row}: {len(text):,} characters, {length:,} tokens")
        shown = visible(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ...")
        yield Padding(Text(shown), (0, 0, 0, 2))
    columns = pipeline.columns("train")
    yield common.heading(f"Chunks of {pipeline.options.chunk_length} tokens (the tail: {pipeline.options.tail})")
    for split in ("train", "validation"):
        lengths = Counter(str(length) for length in common.ragged(pipeline, split, "input_ids").lengths)
        spelt = ", ".join(f"{count:,} of {length}" for length, count in lengths.most_common())
        yield from common.lines(f"{split}: {spelt}")
    row = common.sample(len(columns["input_ids"]), count=1, seed=seed)[0]
    yield common.heading(
        f"Train chunk {row}, masked for the first epoch: as the model sees it, above what it is to guess"
    )
    yield from masked_chunk(pipeline, row, width=width)
    size = len(columns["input_ids"])
    yield from common.padded_batch(pipeline, common.sample(size, count=batch_size, seed=seed), width=width)
    yield from common.token_statistics(pipeline, batch_size=batch_size)


def masked_chunk(pipeline: MaskedLM, row: int, *, width: int) -> Iterator[RenderableType]:
    """One chunk with its hidden tokens, and how they were hidden."""
    batch = pipeline.collate([FeatureRows(pipeline.columns("train"))[0, row]], train=True)
    seen, labels = batch["input_ids"][0].numpy(), batch["labels"][0].numpy()
    hidden = labels != common.IGNORED
    original = np.where(hidden, labels, seen)
    to_guess = [
        token if chosen else "." for token, chosen in zip(common.tokens_of(pipeline, original), hidden, strict=True)
    ]
    styles = ["bold yellow" if chosen else "" for chosen in hidden]
    yield from set_in_columns([common.tokens_of(pipeline, seen), to_guess], width=width, styles=[styles, styles])
    masked = int((seen[hidden] == pipeline.tokenizer.mask_token_id).sum())
    same = int((seen[hidden] == labels[hidden]).sum())
    n = int(hidden.sum())
    yield from common.lines(
        f"{n} of {len(seen)} tokens are to be guessed: {masked} masked, "
        f"{n - masked - same} replaced by another token, {same} left as they are"
    )
