"""Which rows of a packed batch are attended to together, for attention must keep rows apart.

In training rows of like length are attended to in groups, padded within the group alone: where one batch padded to its
longest row would do more than twice the work, groups do a few percent more. Without a gradient rows are taken as they
lie, run by run of those of one length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from touchstone.stages.ragged import Array

GROUP_COST = 10_000
"""What a group costs beside its arithmetic, in places (query, key) of one head: some 30 calls of operators, each as
long as a few thousand places take. Measured on two cores with CoNLL-2003 and SQuAD; half and twice of it change a
step by less than 2%."""
STEP = 8
"""Groups are as long as a multiple of it: few sizes, for each of which a CPU's library makes a kernel of its own in
bfloat16 (see `layout.rounded`)."""
LEAST = torch.finfo(torch.float32).min
"""Added to the score of a key that must not be seen. Not minus infinity: a padded query may see no key at all, and the
mean of nothing is no number."""


@dataclass(frozen=True, eq=False)
class Group:
    """Rows that are attended to together: b rows, padded to `queries` and `keys` tokens.

    Tokens are (T * heads, d): what a head makes of a token is a row of its own.

    Attributes:
        query_index: (b * heads * queries,) the row at each place, some token's where padded.
        gradient_index: the same, and T * heads where padded: the row after the last.
        key_index: (b * heads * keys,) what is attended to, some token's where padded.
        hidden: (b, 1, 1, keys) float32, `LEAST` where a key is padding, else 0; None without padding.
        blind: some row has no key at all.
    """

    rows: int
    queries: int
    keys: int
    query_index: torch.Tensor
    gradient_index: torch.Tensor
    key_index: torch.Tensor
    hidden: torch.Tensor | None
    blind: bool = False


@dataclass(frozen=True, eq=False)
class Grouping:
    """All groups of a batch.

    Attributes:
        query_place: (T_q * heads,) where each packed query stands in the groups' outputs, one after the other.
        key_place: (T_k * heads,) the same of keys.
        heads: of each token.
    """

    groups: tuple[Group, ...]
    query_place: torch.Tensor
    key_place: torch.Tensor
    heads: int

    @cached_property
    def queries_by_group(self) -> list[int]:
        """Places of each group's outputs."""
        return [self.heads * group.rows * group.queries for group in self.groups]

    @cached_property
    def keys_by_group(self) -> list[int]:
        return [self.heads * group.rows * group.keys for group in self.groups]

    @property
    def query_places(self) -> int:
        return sum(self.queries_by_group)

    @property
    def key_places(self) -> int:
        return sum(self.keys_by_group)


@dataclass(frozen=True)
class Run:
    """Rows side by side, each of as many `queries` and `keys`."""

    rows: int
    queries: int
    keys: int


def runs_of(queries: Array, keys: Array) -> list[Run]:
    """All rows in their order.

    >>> runs_of(np.array([7, 7, 2]), np.array([7, 7, 2]))
    [Run(rows=2, queries=7, keys=7), Run(rows=1, queries=2, keys=2)]
    """
    sizes = np.stack([queries, keys], 1)
    starts = np.flatnonzero(np.append(True, (sizes[1:] != sizes[:-1]).any(1)))
    counts = np.diff(starts, append=len(sizes))
    return [Run(int(n), *map(int, sizes[start])) for n, start in zip(counts, starts, strict=True)]


def grouped(queries: Array, keys: Array, *, heads: int, device: torch.device) -> Grouping:
    """Of B rows with these numbers of queries and of keys, the grouping that costs least."""
    groups = []
    sides = [_Side(lengths, heads) for lengths in (queries, keys)]
    for part in _parts(queries, keys):
        (query_index, asked), (key_index, shown) = (side.take(part) for side in sides)
        padded = np.where(asked[:, None], query_index, sides[0].tokens * heads)
        hidden = np.where(shown, 0.0, LEAST).astype(np.float32)[:, None, None]
        groups.append(
            Group(
                rows=len(part),
                queries=asked.shape[1],
                keys=shown.shape[1],
                query_index=on_device(query_index.ravel(), device),
                gradient_index=on_device(padded.ravel(), device),
                key_index=on_device(key_index.ravel(), device),
                hidden=None if shown.all() else on_device(hidden, device),
                blind=not (shown.any(1).all() or shown.all()),
            )
        )
    query_place, key_place = (on_device(side.place.ravel(), device) for side in sides)
    return Grouping(tuple(groups), query_place, key_place, heads)


class _Side:
    """The queries or the keys of all rows, which groups take one after the other."""

    def __init__(self, lengths: Array, heads: int) -> None:
        self.lengths, self.heads = lengths, heads
        self.tokens, self.places = int(lengths.sum()), 0
        self.place = np.zeros((self.tokens, heads), np.int64)
        # An empty row at the end has no first token of its own.
        self._first = np.minimum(np.cumsum(lengths) - lengths, max(self.tokens - 1, 0))

    def take(self, rows: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """(b, heads, L) the rows of (T * heads, d) that are theirs, each row's first token where padded; (b, L) where
        they are real."""
        lengths = self.lengths[rows]
        column = np.arange(_lengthened(lengths).max(initial=0))
        real = column < lengths[:, None]
        token = np.where(real, column, 0) + self._first[rows][:, None]
        index = token[:, None] * self.heads + np.arange(self.heads)[:, None]
        places = self.places + np.arange(index.size).reshape(index.shape)
        self.place[token[real]] = places.transpose(0, 2, 1)[real]
        self.places += index.size
        return index, real


def _parts(queries: Array, keys: Array) -> list[Array]:
    """The rows in groups of like length, so that the cost of all groups is least, by their first row: a group of b
    rows, the longest of L queries or keys, costs `GROUP_COST + b * L^2`, with L lengthened to a multiple of `STEP`.
    Rows of length 0 are in none.
    """
    longest = _lengthened(np.maximum(queries, keys))
    order = np.lexsort((keys, queries, longest))[int((longest == 0).sum()) :]
    squares = longest[order] ** 2
    least, begins = np.zeros(len(order) + 1), np.zeros(len(order) + 1, np.int64)
    for stop in range(1, len(order) + 1):
        costs = least[:stop] + GROUP_COST + np.arange(stop, 0, -1) * squares[stop - 1]
        begins[stop] = costs.argmin()
        least[stop] = costs[begins[stop]]
    parts, stop = [], len(order)
    while stop:
        parts.append(np.sort(order[begins[stop] : stop]))
        stop = int(begins[stop])
    return sorted(parts, key=lambda part: int(part[0]))


def _lengthened(lengths: Array) -> Array:
    return -(-lengths // STEP) * STEP


def on_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
