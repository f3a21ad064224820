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


def is_of_the_script(columns: Columns) -> bool:
    """Return whether the script can have made these columns: without word ids, and labels only from the ids."""
    own = columns.get("labels", columns["input_ids"]) == columns["input_ids"]
    return own and run_mlm.without_word_ids(columns)


supports = {
    "tail": ["drop"],
    "chunk": {"columns": is_of_the_script},
    "chunk_batches": {"batches": lambda batches: all(map(is_of_the_script, batches))},
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
