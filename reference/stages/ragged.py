"""Columnar ragged arrays: many sequences of different lengths as one flat array and its offsets.

This is how Arrow holds a list column, so a tokenized data set passes from Arrow to NumPy and back without a Python
loop. Row i is `values[offsets[i]:offsets[i + 1]]`. Missing integers (`None`, as in `word_ids`) are `MISSING`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[np.int64]

MISSING = -1
"""Stands for `None` where only integers fit: a special token's word id."""
IGNORED = -100
"""A label that no loss and no score may see: the `ignore_index` of `torch.nn.CrossEntropyLoss`."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """N sequences of int64.

    Attributes:
        values: (sum of lengths,) int64, all rows one after the other.
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
        """Rows of integers; `None` becomes -1."""
        arrays = [np.asarray([MISSING if x is None else x for x in row], dtype=np.int64) for row in rows]
        return cls.from_arrays(arrays)

    @classmethod
    def from_arrays(cls, rows: Sequence[Array]) -> Ragged:
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        values = np.concatenate(rows).astype(np.int64, copy=False) if len(rows) else np.empty(0, np.int64)
        return cls.from_lengths(values, lengths=lengths)

    @classmethod
    def from_lengths(cls, values: Array, *, lengths: Array) -> Ragged:
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of all parts, in order."""
        values = np.concatenate([np.empty(0, np.int64), *(part.values for part in parts)])
        return cls.from_lengths(values, lengths=np.concatenate([np.empty(0, np.int64), *(p.lengths for p in parts)]))

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray | pa.Array) -> Ragged:
        """A list column of integers; inner nulls become `MISSING`.

        Raises:
            ValueError: a row that is null, values that are not integers.
        """
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if pa.types.is_fixed_size_list(array.type):
            array = array.cast(pa.large_list(array.type.value_type))
        if array.null_count:
            raise ValueError(f"row {array.is_null().index(True)} is null: an empty list is a row, null is none")
        if not (pa.types.is_integer(array.type.value_type) or pa.types.is_boolean(array.type.value_type)):
            raise ValueError(f"values are {array.type.value_type}, integers are wanted")
        offsets = np.asarray(array.offsets, dtype=np.int64)
        values = array.values[offsets[0] : offsets[-1]]
        flat = values.fill_null(MISSING) if values.null_count else values
        return cls(flat.to_numpy(zero_copy_only=False).astype(np.int64, copy=False), offsets - offsets[0])

    def to_arrow(self) -> pa.LargeListArray:
        return pa.LargeListArray.from_arrays(pa.array(self.offsets), pa.array(self.values))

    def to_lists(self) -> list[list[int]]:
        return [row.tolist() for row in self]

    @property
    def lengths(self) -> Array:
        """(N,) length of each row."""
        lengths: Array = self.offsets[1:] - self.offsets[:-1]  # np.diff takes longer than the rest of a small batch
        return lengths

    @property
    def rows(self) -> Array:
        """(sum of lengths,) the row each value belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    @property
    def places(self) -> Array:
        """(sum of lengths,) the place of each value in its row, from 0."""
        places: Array = np.arange(len(self.values), dtype=np.int64) - np.repeat(self.offsets[:-1], self.lengths)
        return places

    def with_values(self, values: Array) -> Ragged:
        """The same shape with other values."""
        return Ragged(values, self.offsets)

    def take(self, rows: Array) -> Ragged:
        """The rows of these numbers, in this order, copied: (M,) numbers of 0 to N - 1, any of them several times."""
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
