"""Columnar ragged arrays: many sequences of different lengths as one flat array and its offsets.

Row i is `values[offsets[i]:offsets[i + 1]]`. Arrow stores a list column in the same way, so a tokenized data set passes
from Arrow to NumPy and back without a Python loop. Missing integers (`None`, as in `word_ids`) are `MISSING`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[np.int64]

MISSING = -1
"""Represents `None` in an array of integers, such as the word id of a special token."""
IGNORED = -100
"""The label that losses and scores leave out: the `ignore_index` of `torch.nn.CrossEntropyLoss`."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """N sequences of int64.

    >>> rows = Ragged.from_lists([[5, 6], [], [7]])
    >>> rows.values.tolist(), rows.offsets.tolist()
    ([5, 6, 7], [0, 2, 2, 3])
    >>> rows[0].tolist()
    [5, 6]

    Attributes:
        values: (sum of lengths,) int64, all rows concatenated.
        offsets: (N + 1,) int64, non-decreasing from 0 to `len(values)`.

    Raises:
        ValueError: offsets that do not start at 0, decrease, or do not end at `len(values)`.
    """

    values: Array
    offsets: Array

    def __post_init__(self) -> None:
        offsets = self.offsets
        if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(self.values):
            raise ValueError(f"offsets must run from 0 to {len(self.values)}, got {offsets[:1]} to {offsets[-1:]}")
        if (offsets[1:] < offsets[:-1]).any():
            raise ValueError(f"offsets decrease after row {int((offsets[1:] < offsets[:-1]).argmax())}")

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int | None]]) -> Ragged:
        """Make a ragged array from rows of integers. `None` becomes -1."""
        arrays = [np.asarray([MISSING if x is None else x for x in row], dtype=np.int64) for row in rows]
        return cls.from_arrays(arrays)

    @classmethod
    def from_arrays(cls, rows: Sequence[Array]) -> Ragged:
        """Make a ragged array from N arrays, one per row."""
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        values = np.concatenate(rows).astype(np.int64, copy=False) if len(rows) else np.empty(0, np.int64)
        return cls.from_lengths(values, lengths=lengths)

    @classmethod
    def from_lengths(cls, values: Array, *, lengths: Array) -> Ragged:
        """Make a ragged array from flat values and the length of each row."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[Ragged]) -> Ragged:
        """Return the rows of all parts, in order."""
        values = np.concatenate([np.empty(0, np.int64), *(part.values for part in parts)])
        return cls.from_lengths(values, lengths=np.concatenate([np.empty(0, np.int64), *(p.lengths for p in parts)]))

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray | pa.Array) -> Ragged:
        """Make a ragged array from a list column of integers. Nulls within a row become `MISSING`.

        Raises:
            ValueError: a row that is null, values that are not integers.
        """
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if pa.types.is_fixed_size_list(array.type):
            array = array.cast(pa.large_list(array.type.value_type))
        if array.null_count:
            raise ValueError(f"row {array.is_null().index(True)} is null: use an empty list for an empty row")
        if not (pa.types.is_integer(array.type.value_type) or pa.types.is_boolean(array.type.value_type)):
            raise ValueError(f"the column holds lists of {array.type.value_type}: it must hold lists of integers")
        offsets = np.asarray(array.offsets, dtype=np.int64)
        values = array.values[offsets[0] : offsets[-1]]
        flat = values.fill_null(MISSING) if values.null_count else values
        return cls(flat.to_numpy(zero_copy_only=False).astype(np.int64, copy=False), offsets - offsets[0])

    def to_arrow(self) -> pa.LargeListArray:
        """Return the rows as an Arrow list array."""
        return pa.LargeListArray.from_arrays(pa.array(self.offsets), pa.array(self.values))

    def to_lists(self) -> list[list[int]]:
        """Return the rows as lists of Python integers."""
        return [row.tolist() for row in self]

    @property
    def lengths(self) -> Array:
        """The length of each row, (N,)."""
        lengths: Array = self.offsets[1:] - self.offsets[:-1]  # np.diff takes longer than the rest of a small batch
        return lengths

    @property
    def rows(self) -> Array:
        """The row of each value, (sum of lengths,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    @property
    def places(self) -> Array:
        """The place of each value in its row, from 0, (sum of lengths,)."""
        places: Array = np.arange(len(self.values), dtype=np.int64) - np.repeat(self.offsets[:-1], self.lengths)
        return places

    def with_values(self, values: Array) -> Ragged:
        """Return a ragged array of the same shape with other values."""
        return Ragged(values, self.offsets)

    def take(self, rows: Array) -> Ragged:
        """Return copies of the rows with these indices, (M,) in any order and with repeats."""
        lengths = self.lengths[rows]
        taken = Ragged.from_lengths(np.empty(lengths.sum(), np.int64), lengths=lengths)
        shift = np.repeat(self.offsets[rows] - taken.offsets[:-1], lengths)
        np.take(self.values, np.arange(len(taken.values)) + shift, out=taken.values)
        return taken

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Array:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[Array]:
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ragged):
            return NotImplemented
        return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.values, other.values)

    __hash__ = None  # type: ignore[assignment]  # arrays are mutable
