"""A look at causal language modeling: programs, the chunks they are cut into, and what is predicted in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import cast

import numpy as np
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from reference.pipelines.causal_lm import CODE, CausalLM
from reference.pipelines.pipeline import FeatureRows, Pipeline
from reference.stages.causal import key_token_weights
from suite.looking import common
from suite.looking.columns import set_in_columns, visible

SHOWN_LINES = 24


def look(pipeline: Pipeline, *, samples: int, seed: int, batch_size: int, width: int) -> Iterator[RenderableType]:
    pipeline = cast(CausalLM, pipeline)
    yield from common.features(pipeline, columns=(CODE,))
    data = pipeline.source.examples("train", columns=(CODE,))
    for row in common.sample(len(data), count=samples, seed=seed):
        code = data[row][CODE]
        length = common.token_count(pipeline, code)
        yield common.heading(f"Train program {row}: {len(code):,} characters, {length:,} tokens")
        lines = code.splitlines()
        shown = [visible(line) for line in lines[:SHOWN_LINES]] + ["..."] * (len(lines) > SHOWN_LINES)
        yield Padding(Text("\n".join(shown)), (0, 0, 0, 2))
    options = pipeline.options
    yield common.heading(
        f"Chunks of {options.context_length} tokens (the remainder of a document: {options.remainder})"
    )
    for split in ("train", "validation"):
        ids = common.ragged(pipeline, split, "input_ids")
        lengths = Counter(int(length) for length in ids.lengths).most_common(3)
        spelt = ", ".join(f"{count:,} of {length}" for length, count in lengths)
        yield from common.lines(f"{split}: {len(ids):,} chunks, most often {spelt}")
    row = common.sample(len(pipeline.columns("train")["input_ids"]), count=1, seed=seed)[0]
    yield common.heading(f"Train chunk {row}: what the model reads, above what it is to predict there")
    yield from predicted_chunk(pipeline, row, width=width)
    if options.key_tokens:
        yield from key_tokens(pipeline)
    size = len(pipeline.columns("train")["input_ids"])
    yield from common.padded_batch(pipeline, common.sample(size, count=batch_size, seed=seed), width=width)
    yield from common.token_statistics(pipeline, batch_size=batch_size)


def predicted_chunk(pipeline: CausalLM, row: int, *, width: int) -> Iterator[RenderableType]:
    """One chunk above itself, moved by a token."""
    batch = pipeline.collate([FeatureRows(pipeline.columns("train"))[0, row]], train=True)
    tokens = common.tokens_of(pipeline, batch["input_ids"][0].numpy())
    yield from set_in_columns([tokens, [*tokens[1:], "."]], width=width)
    yield from common.lines(f"{batch['size'].items} of {len(tokens)} tokens are predicted: all but the first")


def key_tokens(pipeline: CausalLM) -> Iterator[RenderableType]:
    """How often each key token occurs, and how the chunks weigh by them."""
    ids = common.ragged(pipeline, "train", "input_ids")
    names = dict(zip(pipeline.key_ids.tolist(), pipeline.options.key_tokens, strict=True))
    found = Counter(dict.fromkeys(names.values(), 0))
    found.update(names[token] for token in ids.values.tolist() if token in names)
    yield common.heading("Key tokens in train")
    yield from common.counts([("tokens", found)], of="key token")
    weights = np.concatenate(
        [key_token_weights([chunk.tolist()], key_ids=pipeline.key_ids, alpha=pipeline.options.alpha) for chunk in ids]
    )
    yield from common.lines(
        f"a chunk weighs {weights.min():g} to {weights.max():g}, {weights.mean():.2f} on average (alpha "
        f"{pipeline.options.alpha:g}); evaluation weighs all alike"
    )
