"""transformers' example run_mlm.py (version 4.56): `group_texts` and the perplexity of `trainer.evaluate()`.

Written anew with the same behaviour. The script tokenizes without word ids, drops the remainder of each batch of
`map`, and takes exp of `eval_loss`. The Trainer's `eval_loss` counts each row once, whatever the number of its labels,
and all batches but the last have equally many rows; so it is the mean of the batches' means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

Columns = Mapping[str, Sequence[Sequence[Any]]]


def without_word_ids(columns: Columns) -> bool:
    return "word_ids" not in columns


supports = {
    "tail": ["drop"],
    "chunk": {"columns": without_word_ids},
    "chunk_batches": {"batches": lambda batches: all(map(without_word_ids, batches))},
}
choices = {"remainder": "batch"}


def chunk(columns: Columns, *, length: int) -> dict[str, list[Any]]:
    joined = {name: list(chain(*rows)) for name, rows in columns.items()}
    total = len(joined[next(iter(columns))]) // length * length
    return {
        name: [values[start : start + length] for start in range(0, total, length)] for name, values in joined.items()
    }


def chunk_batches(batches: Iterable[Columns], *, length: int) -> dict[str, list[Any]]:
    return joined_batches(chunk(batch, length=length) for batch in batches)


def joined_batches(parts: Iterable[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """Join the results of batches, as `Dataset.map(batched=True)` does."""
    joined: dict[str, list[Any]] = {}
    for part in parts:
        for name, rows in part.items():
            joined.setdefault(name, []).extend(rows)
    return joined


def perplexity(losses: Sequence[float], *, tokens: Sequence[int]) -> float:
    eval_loss = float(np.mean(losses))
    try:
        return math.exp(eval_loss)
    except OverflowError:
        return float("inf")
