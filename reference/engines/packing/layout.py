"""Which token of a packed batch belongs to which row, and which rows are attended to together.

A packed batch is one row of all the real tokens of B rows, one after the other. Attention must still keep the rows
apart. On a CPU rows of like length are attended to in groups, padded within the group alone: where one batch padded to
its longest row would do more than twice the work, groups do a few percent more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reference.ragged import Array

GROUP_COST = 10_000
"""What a group costs beside its arithmetic, in places (query, key) of one head: some 30 calls of operators, each as
long as a few thousand places take. Measured on two cores with CoNLL-2003 and SQuAD; half and twice of it change a
step by less than 2%."""
LOOK_COST = 6_000
"""The same of attention without a gradient: some 12 calls, and less time a place. Measured likewise."""
HIDING = 1.4
"""Without a gradient a group whose padding must be hidden takes so many times as long: rows of SQuAD's lengths are
faster one by one. With a gradient it is a small part of all."""


@dataclass(frozen=True, eq=False)
class Group:
    """Rows that are attended to together: b rows, padded to `queries` and `keys` tokens.

    Attributes:
        query_index: (b * queries,) the packed token at each place, any token where padded; a slice, where these are
            tokens one after the other.
        key_index: (b * keys,) the same of what is attended to.
        hidden: (b, 1, keys) bool, True where a key is padding; None without padding.
        unasked: (b, queries, 1) bool, True where a query is padding; None without padding.
        blind: some row has no key at all.
    """

    rows: int
    queries: int
    keys: int
    query_index: torch.Tensor | slice
    key_index: torch.Tensor | slice
    hidden: torch.Tensor | None
    unasked: torch.Tensor | None
    blind: bool = False


@dataclass(frozen=True, eq=False)
class Grouping:
    """All groups of a batch.

    Attributes:
        query_place: (T_q,) where each packed query stands in the groups' outputs, one after the other; None: in order.
        key_place: (T_k,) the same of keys.
    """

    groups: tuple[Group, ...]
    query_place: torch.Tensor | None
    key_place: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Segments:
    """The rows of a padded batch, one after the other without their padding: row i is tokens `offsets[i]` to
    `offsets[i + 1]`.

    Attributes:
        mask: (B, T) bool, True where real, on the host.
        device: where the indices are wanted.
    """

    mask: npt.NDArray[np.bool_]
    device: torch.device

    @cached_property
    def lengths(self) -> Array:
        return np.asarray(self.mask.sum(1), dtype=np.int64)

    @cached_property
    def offsets(self) -> Array:
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @cached_property
    def padded(self) -> bool:
        return not self.mask.all()

    @cached_property
    def even(self) -> bool:
        return len(self.lengths) > 0 and self.lengths[0] > 0 and bool((self.lengths == self.lengths[0]).all())

    @cached_property
    def positions(self) -> torch.Tensor:
        """(T,) the place of each token in its row."""
        places = np.arange(self.offsets[-1]) - np.repeat(self.offsets[:-1], self.lengths)
        return to_device(places, self.device)

    @cached_property
    def real(self) -> torch.Tensor:
        """(T,) where each token was in the padded batch, flattened."""
        return to_device(np.flatnonzero(self.mask), self.device)

    @cached_property
    def rank(self) -> torch.Tensor:
        """(B * T,) the token that each real place of the padded batch, flattened, has become."""
        return to_device(np.cumsum(self.mask.ravel()) - 1, self.device)

    @cached_property
    def bounds(self) -> tuple[torch.Tensor, int]:
        """(B + 1,) int32 offsets, and the longest row: what a kernel for packed rows wants."""
        return to_device(self.offsets.astype(np.int32), self.device), int(self.lengths.max(initial=0))

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """(1, T) of (B, T): the real places."""
        flat = padded.flatten()
        return (flat.index_select(0, self.real) if self.padded else flat)[None]

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """(B, T, ...) of (T', ...): zero at padding."""
        if self.padded:
            empty = packed.new_zeros((self.mask.size, *packed.shape[1:]))
            packed = empty.index_copy(0, self.real, packed)
        return packed.view(*self.mask.shape, *packed.shape[1:])


def to_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class Layout:
    """A packed batch.

    Attributes:
        source: the rows of `input_ids`.
        target: the rows of `decoder_input_ids`, where there are some.
    """

    source: Segments
    target: Segments | None = None
    _groupings: dict[tuple[int, int, bool], Grouping] = field(default_factory=dict)

    @classmethod
    def of(
        cls, mask: torch.Tensor, *, decoder_mask: torch.Tensor | None = None, device: torch.device | None = None
    ) -> Layout:
        """From (B, T) masks, 1 where real. Masks on the host spare a wait for the device."""

        def segments(mask: torch.Tensor) -> Segments:
            return Segments(mask.cpu().numpy().astype(bool), device or mask.device)

        return cls(segments(mask), None if decoder_mask is None else segments(decoder_mask))

    def grouping(self, queries: Segments, keys: Segments, *, learns: bool = True) -> Grouping:
        """How `queries` attend to `keys`, made once a batch; for a backward pass, too, if it `learns`."""
        which = (id(queries), id(keys), learns)
        if which not in self._groupings:
            self._groupings[which] = _grouped(queries, keys, learns=learns)
        return self._groupings[which]


def _grouped(queries: Segments, keys: Segments, *, learns: bool) -> Grouping:
    if queries.even and keys.even:  # nothing to pad: the rows lie as attention wants them
        rows = len(queries.lengths)
        everything = slice(None)
        group = Group(rows, int(queries.lengths[0]), int(keys.lengths[0]), everything, everything, None, None)
        return Grouping((group,), None, None)
    parts = _parts(queries.lengths, keys.lengths, learns=learns)

    def tensor(array: npt.NDArray[Any]) -> torch.Tensor:
        return to_device(array, queries.device)

    def back(place: Array, outputs: int) -> torch.Tensor | None:
        return None if _as_slice(place) == slice(0, outputs) else tensor(place)

    groups = []
    query_place, key_place = (np.zeros(segments.offsets[-1], np.int64) for segments in (queries, keys))
    queries_before = keys_before = 0
    for part in parts:
        query_index, query_real = _padded(queries, part)
        key_index, key_real = _padded(keys, part)
        query_place[query_index[query_real]] = queries_before + np.flatnonzero(query_real)
        key_place[key_index[key_real]] = keys_before + np.flatnonzero(key_real)
        queries_before += query_real.size
        keys_before += key_real.size
        groups.append(
            Group(
                rows=len(part),
                queries=query_real.shape[1],
                keys=key_real.shape[1],
                query_index=_as_slice(query_index) or tensor(query_index.ravel()),
                key_index=_as_slice(key_index) or tensor(key_index.ravel()),
                hidden=None if key_real.all() else tensor(~key_real[:, None]),
                unasked=None if query_real.all() else tensor(~query_real[:, :, None]),
                blind=not (key_real.any(1).all() or key_real.all()),
            )
        )
    return Grouping(tuple(groups), back(query_place, queries_before), back(key_place, keys_before))


def _as_slice(index: Array) -> slice | None:
    """Of indices one after the other; None of others."""
    first = int(index.flat[0]) if index.size else 0
    return slice(first, first + index.size) if np.array_equal(index.ravel(), first + np.arange(index.size)) else None


def _parts(queries: Array, keys: Array, *, learns: bool) -> list[Array]:
    """The rows in groups of like length, so that the cost of all groups is least, by their first row: a group of b
    rows, the longest of L queries or keys, costs `GROUP_COST + b * L^2`; without a gradient `LOOK_COST + b * L^2`, and
    its second part times `HIDING` where rows differ. Rows of length 0 are in none.
    """
    cost, hiding = (GROUP_COST, 1.0) if learns else (LOOK_COST, HIDING)
    longest = np.maximum(queries, keys)
    order = np.lexsort((keys, queries, longest))[int((longest == 0).sum()) :]
    squares = longest[order] ** 2
    kinds = np.unique(np.stack([queries, keys])[:, order], axis=1, return_inverse=True)[1].ravel()
    least, begins = np.zeros(len(order) + 1), np.zeros(len(order) + 1, np.int64)
    for stop in range(1, len(order) + 1):
        places = np.arange(stop, 0, -1) * squares[stop - 1]
        costs = least[:stop] + cost + np.where(kinds[:stop] == kinds[stop - 1], places, hiding * places)
        begins[stop] = costs.argmin()
        least[stop] = costs[begins[stop]]
    parts, stop = [], len(order)
    while stop:
        parts.append(np.sort(order[begins[stop] : stop]))
        stop = int(begins[stop])
    return sorted(parts, key=lambda part: int(part[0]))


def _padded(segments: Segments, rows: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """(b, L) the tokens of these rows, the row's first where padded (of an empty row, some other), and where they are
    real."""
    lengths = segments.lengths[rows]
    place = np.arange(lengths.max(initial=0))
    real = place < lengths[:, None]
    first = np.minimum(segments.offsets[:-1], max(segments.offsets[-1] - 1, 0))  # an empty row at the end has none
    return np.where(real, place, 0) + first[rows][:, None], real


_ACTIVE: ContextVar[Layout | None] = ContextVar("layout", default=None)


def active() -> Layout | None:
    """The layout of the batch that is on its way through the model; None where rows are padded as usual."""
    return _ACTIVE.get()


@contextmanager
def laid_out(layout: Layout) -> Iterator[None]:
    token = _ACTIVE.set(layout)
    try:
        yield
    finally:
        _ACTIVE.reset(token)
