"""transformers' example run_clm.py (version 4.56): `group_texts`, which makes the labels.

Written anew with the same behaviour. The labels are a copy of the list of chunks, whose rows are the same lists. The
adapter leaves them out if they were not asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from touchstone.suite.implementations import run_mlm
from touchstone.suite.implementations.run_mlm import Columns, joined_batches, perplexity

__all__ = ["choices", "chunk", "chunk_batches", "perplexity", "supports"]

choices = run_mlm.choices


def has_equal_labels(columns: Columns) -> bool:
    """Return whether the script can have made these columns: labels are its own work, from the ids."""
    return run_mlm.without_word_ids(columns) and "labels" not in columns


supports = {
    "tail": ["drop"],
    "chunk": {"columns": has_equal_labels},
    "chunk_batches": {"batches": lambda batches: all(map(has_equal_labels, batches))},
}


def group_texts(examples: Columns, block_size: int) -> dict[str, list[Any]]:
    result = run_mlm.chunk(examples, length=block_size)
    result["labels"] = result["input_ids"].copy()
    return result


def chunk(columns: Columns, *, length: int) -> dict[str, list[Any]]:
    chunks = group_texts(columns, length)
    return {name: chunks[name] for name in columns}


def chunk_batches(batches: Iterable[Columns], *, length: int) -> dict[str, list[Any]]:
    return joined_batches(chunk(batch, length=length) for batch in batches)
