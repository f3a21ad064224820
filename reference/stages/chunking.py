"""Cut running text into chunks for language modelling: concatenate the documents, then cut at a fixed length.

Time and memory are linear in the number of tokens. (Concatenating with `sum(lists, [])` copies everything read so far
for each document.) The tail is handled once, at the end of the whole data set, not at the end of each batch of a `map`:
so the result does not depend on how the documents were batched.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from touchstone.stages.ragged import MISSING, Array, Ragged

TAILS = ("drop", "keep", "pad")
WORD_IDS = "word_ids"


def chunk(
    columns: Mapping[str, Sequence[Sequence[Any]]],
    *,
    length: int,
    tail: str = "drop",
    pad: Mapping[str, Any] | None = None,
) -> dict[str, list[list[Any]]]:
    """Concatenate documents and cut chunks of `length` tokens.

    >>> chunk({"input_ids": [[5, 6, 7], [8, 9]], "word_ids": [[0, 0, 1], [0, 1]]}, length=2)
    {'input_ids': [[5, 6], [7, 8]], 'word_ids': [[0, 0], [1, 2]]}
    >>> chunk({"input_ids": [[5, 6, 7], [8, 9]]}, length=2, tail="pad", pad={"input_ids": 0})
    {'input_ids': [[5, 6], [7, 8], [9, 0]]}

    Args:
        columns: column to D documents; document d has T_d values in every column. The column `word_ids` is renumbered,
            so that no two documents share an id.
        length: tokens per chunk.
        tail: the treatment of the last, shorter chunk: `drop`, `keep`, or fill up (`pad`).
        pad: with `tail="pad"`, the fill value of each column.

    Returns:
        Column to chunks: sum(T_d) // length of them, and one more if a tail is kept or padded. Every input column is
        present, even if there are no chunks.

    Raises:
        ValueError: columns with different numbers or lengths of documents, `length < 1`, an unknown tail, a column
            without a pad value, a negative word id.
    """
    _check_options(columns, length=length, tail=tail, pad=pad)
    sizes = {name: [len(document) for document in documents] for name, documents in columns.items()}
    _check_congruent(sizes)

    chunks = {}
    for name, documents in columns.items():
        values = _own(chain.from_iterable(_renumber(documents) if name == WORD_IDS else documents))
        rest = len(values) % length
        if rest and tail == "drop":
            del values[-rest:]
        elif rest and tail == "pad":
            assert pad is not None
            values += _own([pad[name]] * (length - rest))
        chunks[name] = [values[start : start + length] for start in range(0, len(values), length)]
    return chunks


def chunk_batches(
    batches: Iterable[Mapping[str, Sequence[Sequence[Any]]]],
    *,
    length: int,
    tail: str = "drop",
    pad: Mapping[str, Any] | None = None,
) -> dict[str, list[list[Any]]]:
    """Apply `chunk` to the documents of all batches together.

    The result does not depend on how the documents are spread over batches.

    >>> chunk_batches([{"input_ids": [[5, 6, 7]]}, {"input_ids": [[8, 9]]}], length=2)
    {'input_ids': [[5, 6], [7, 8]]}

    Args:
        batches: an iterable of mappings as `chunk` takes them, such as the batches of a `map`. It is read once. Without
            batches the result has no columns.
        length, tail, pad: as in `chunk`.

    Returns:
        As `chunk`.

    Raises:
        ValueError: as in `chunk`, with the number of the batch; batches with different columns.
    """
    documents: dict[str, list[Sequence[Any]]] = {}
    for number, batch in enumerate(batches):
        if number == 0:
            documents = {name: [] for name in batch}
        if documents.keys() != batch.keys():
            raise ValueError(f"batch {number} has the columns {sorted(batch)}, batch 0 has {sorted(documents)}")
        try:  # per batch, because the errors of two batches could cancel out
            _check_congruent({name: [len(document) for document in column] for name, column in batch.items()})
        except ValueError as error:
            raise ValueError(f"batch {number}: {error}") from None
        for name, column in batch.items():
            documents[name].extend(column)
    return chunk(documents, length=length, tail=tail, pad=pad)


def _renumber(documents: Sequence[Sequence[int | None]]) -> Iterable[list[int | None]]:
    """Yield word ids that no two documents share: each document's are shifted past the largest before it."""
    shift = 0
    for number, document in enumerate(documents):
        present = [word for word in document if word is not None]
        if present and min(present) < 0:
            raise ValueError(f"word_ids of document {number} hold {min(present)}: a word id is 0 or more, or None")
        yield [None if word is None else word + shift for word in document]
        shift += max(present, default=-1) + 1


IMMUTABLE = frozenset({int, float, bool, str, bytes, type(None)})


def _own(values: Iterable[Any]) -> list[Any]:
    """Return the values in a new list. NumPy integers become Python's; nested lists (offset pairs) are copied."""
    flat = list(values)
    if set(map(type, flat)) <= IMMUTABLE:  # one pass in C keeps the common case cheap
        return flat
    return [value.item() if isinstance(value, np.generic) else copy.deepcopy(value) for value in flat]


def _check_options(columns: Iterable[str], *, length: int, tail: str, pad: Mapping[str, Any] | None) -> None:
    if length < 1:
        raise ValueError(f"length is {length}: a chunk has 1 token or more")
    if tail not in TAILS:
        raise ValueError(f"tail {tail!r} is unknown: use one of {', '.join(TAILS)}")
    if tail == "pad" and (missing := [name for name in columns if name not in (pad or {})]):
        raise ValueError(f"tail='pad' needs a value for every column, and pad has none for {missing}")


def _check_congruent(sizes: Mapping[str, Sequence[int]]) -> None:
    """Raise ValueError unless every column has the same number of documents, of the same lengths."""
    if not sizes:
        return
    name, expected = next(iter(sizes.items()))
    for other, lengths in sizes.items():
        if len(lengths) != len(expected):
            raise ValueError(f"column {other!r} has {len(lengths)} documents, column {name!r} has {len(expected)}")
        for number, (mine, theirs) in enumerate(zip(lengths, expected, strict=True)):
            if mine != theirs:
                raise ValueError(f"document {number} has {mine} values in {other!r} and {theirs} in {name!r}")


# The batched version --------------------------------------------------------------------------------------------------


def chunk_batch(
    columns: Mapping[str, Ragged],
    *,
    length: int,
    tail: str = "drop",
    pad: Mapping[str, Any] | None = None,
) -> dict[str, Ragged]:
    """Apply `chunk` to columns of `Ragged`, with -1 for `None`. The documents are already concatenated in its values.

    Args:
        columns: column to D rows, one per document.
        length, tail, pad: as in `chunk`.

    Returns:
        Column to chunks, one row each.

    Raises:
        ValueError: as in `chunk`.
    """
    _check_options(columns, length=length, tail=tail, pad=pad)
    first = next(iter(columns.values()), None)
    if first is None:
        return {}
    if not all(np.array_equal(column.offsets, first.offsets) for column in columns.values()):
        _check_congruent({name: column.lengths.tolist() for name, column in columns.items()})

    total = len(first.values)
    whole = total - total % length
    end = {"drop": whole, "keep": total, "pad": whole + length * (total > whole)}[tail]
    offsets = np.append(np.arange(0, end, length, dtype=np.int64), end) if end else np.zeros(1, np.int64)
    chunks = {}
    for name, column in columns.items():
        values = np.empty(end, np.int64)
        values[:total] = (_renumber_flat(column) if name == WORD_IDS else column.values)[:end]
        if end > total:
            assert pad is not None
            values[total:] = MISSING if pad[name] is None else pad[name]
        chunks[name] = Ragged(values, offsets.copy())
    return chunks


def _renumber_flat(word_ids: Ragged) -> Array:
    values = word_ids.values
    if (wrong := np.flatnonzero(values < MISSING)).size:
        number = word_ids.rows[wrong[0]]
        raise ValueError(f"word_ids of document {number} hold {values[wrong[0]]}: a word id is 0 or more, or None")
    used = np.zeros(len(word_ids), np.int64)  # ids that a document uses: its largest + 1, or 0 if all are None
    filled = np.flatnonzero(word_ids.lengths)  # reduceat would give an empty row the value of the next row
    if filled.size:
        used[filled] = np.maximum.reduceat(values, word_ids.offsets[filled]) + 1
    shift = np.repeat(np.cumsum(used) - used, word_ids.lengths)
    return np.where(values == MISSING, MISSING, values + shift)
