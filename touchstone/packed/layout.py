"""The layout of a packed batch: which token belongs to which row, and which rows attention computes together.

A padded batch of B rows is packed into one row of all its real tokens:

    padded (3, 4)       packed (1, 7)
    a b c .             tokens     a b c d e f g
    d e . .      ->     positions  0 1 2 0 1 0 1
    f g . .             offsets    0     3   5   7

Attention has to keep the rows apart, and does so in one of two ways. In training, rows of similar length form a group,
padded only to the longest row of the group: a few percent of extra work, where padding the whole batch to its longest
row would more than double it. Without a gradient, consecutive rows of equal length form a block and need no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from touchstone.stages.ragged import Array

GROUP_COST = 10_000
"""The fixed cost of a group, in (query, key) pairs of one head: some 30 operator calls, each as long as a few thousand
pairs take. Measured on two cores with CoNLL-2003 and SQuAD; half or twice this value changes a step by less than 2%."""
LENGTH_MULTIPLE = 8
"""Groups are padded to a multiple of this length, so that few shapes occur (see `rounded`)."""
MASKED_SCORE = torch.finfo(torch.float32).min
"""Added to the attention score of a key that must not be seen. It is finite because a padded query may see no key at
all, and softmax over nothing but minus infinity is NaN."""

Rounding = Callable[[int], int]
"""Maps a token count to the size its batch is padded to."""


def unrounded(tokens: int) -> int:
    """Return the count itself: batches are not padded."""
    return tokens


def rounded(tokens: int) -> int:
    """Return the next of a few sizes; for bfloat16 on a CPU.

    There oneDNN compiles a kernel for every new shape of a matrix product, which takes longer than the product, and
    caches only the last thousand.

    >>> [rounded(tokens) for tokens in (1, 337, 513, 2500)]
    [32, 352, 576, 2560]
    """
    step = min(max(1 << max((tokens - 1).bit_length() - 4, 0), 32), 128)
    return -(-tokens // step) * step


# Rows of a packed batch -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Segments:
    """The rows of a batch, packed: row i is tokens `offsets[i]` to `offsets[i + 1]`. All indices count tokens.

    Attributes:
        mask: (B, T) bool, True at real tokens, on the host.
        device: where the index tensors are needed.
        filler: length of an extra last row that rounds up the number of tokens and whose outputs are not used. None:
            there is no such row.
    """

    mask: npt.NDArray[np.bool_]
    device: torch.device
    filler: int | None = None

    @cached_property
    def lengths(self) -> Array:
        """(B,) tokens of each row; (B + 1,) with the filler row."""
        lengths = np.asarray(self.mask.sum(1), dtype=np.int64)
        return lengths if self.filler is None else np.append(lengths, self.filler)

    @property
    def tokens(self) -> int:
        """The number of tokens, T'; with the filler row."""
        return int(self.offsets[-1])

    @cached_property
    def offsets(self) -> Array:
        """Where each row begins, and where the last one ends."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @cached_property
    def has_padding(self) -> bool:
        """True if the padded batch has padding."""
        return not self.mask.all()

    @cached_property
    def positions(self) -> torch.Tensor:
        """(T',) the position of each token in its row. It is 0 in the filler row, which may be longer than the model
        has positions."""
        positions = np.arange(self.tokens) - np.repeat(self.offsets[:-1], self.lengths)
        positions[self.tokens - (self.filler or 0) :] = 0
        return on_device(positions, self.device)

    @cached_property
    def padded_index(self) -> torch.Tensor:
        """The index of each packed token in the flattened padded batch, without the filler row."""
        return on_device(np.flatnonzero(self.mask), self.device)

    @cached_property
    def packed_index(self) -> torch.Tensor:
        """(B * T,) the index of each real token of the flattened padded batch in the packed one."""
        return on_device(np.cumsum(self.mask.ravel()) - 1, self.device)

    @cached_property
    def _gather_index(self) -> torch.Tensor:
        """(T',) `padded_index`, then the first token repeated for the filler row."""
        real = np.flatnonzero(self.mask)
        if not self.filler:
            return self.padded_index
        return on_device(np.append(real, np.repeat(real[:1], self.filler)), self.device)

    @cached_property
    def bounds(self) -> tuple[torch.Tensor, int]:
        """(B + 1,) int32 offsets, and the length of the longest row, as FlashAttention takes them."""
        return on_device(self.offsets.astype(np.int32), self.device), int(self.lengths.max(initial=0))

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """Turn (B, T) into (1, T'): the real tokens, and copies of the first one in the filler row."""
        flat = padded.flatten()
        return (flat.index_select(0, self._gather_index) if self.has_padding else flat)[None]

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """Turn (T', ...) into (B, T, ...), with zeros at padding."""
        if self.has_padding:
            zeros = packed.new_zeros((self.mask.size, *packed.shape[1:]))
            packed = zeros.index_copy(0, self.padded_index, packed[: len(self.padded_index)])
        return packed.view(*self.mask.shape, *packed.shape[1:])


@dataclass(frozen=True, eq=False)
class Layout:
    """The layout of one packed batch.

    Attributes:
        source: the rows of `input_ids`.
        target: the rows of `decoder_input_ids`, for an encoder-decoder.
    """

    source: Segments
    target: Segments | None = None
    _groupings: dict[tuple[int, int, int], Grouping] = field(default_factory=dict)
    _blocks: dict[tuple[int, int], list[RowBlock]] = field(default_factory=dict)

    @property
    def predicted(self) -> Segments:
        """The rows that the model computes logits for."""
        return self.source if self.target is None else self.target

    @classmethod
    def of(
        cls,
        mask: torch.Tensor,
        *,
        decoder_mask: torch.Tensor | None = None,
        device: torch.device | None = None,
        rounding: Rounding = unrounded,
    ) -> Layout:
        """Make the layout from (B, T) masks, 1 at real tokens. Pass them on the host to avoid a device synchronization.

        Args:
            rounding: the size that batches with padding are rounded up to. Batches without padding are left alone:
                their sizes are few anyway. If one of source and target gets a filler row, so does the other, possibly
                of length 0.
        """
        masks = [each.cpu().numpy().astype(bool) for each in (mask, decoder_mask) if each is not None]
        counts = [0 if each.all() else int(each.sum()) for each in masks]
        fillers = [rounding(count) - count if count else 0 for count in counts]
        source, *target = (
            Segments(each, device or mask.device, filler if any(fillers) else None)
            for each, filler in zip(masks, fillers, strict=True)
        )
        return cls(source, target[0] if target else None)

    def grouping(self, queries: Segments, keys: Segments, *, heads: int) -> Grouping:
        """Return the groups in which `queries` attend to `keys` in training; computed once per batch."""
        which = (id(queries), id(keys), heads)
        if which not in self._groupings:
            self._groupings[which] = group_rows(queries.lengths, keys.lengths, heads=heads, device=queries.device)
        return self._groupings[which]

    def blocks(self, queries: Segments, keys: Segments) -> list[RowBlock]:
        """Return the blocks in which `queries` attend to `keys` without a gradient; computed once per batch."""
        which = (id(queries), id(keys))
        if which not in self._blocks:
            self._blocks[which] = row_blocks(queries.lengths, keys.lengths)
        return self._blocks[which]


_CURRENT: ContextVar[Layout | None] = ContextVar("layout", default=None)


def current_layout() -> Layout | None:
    """Return the layout of the batch in the model's forward pass, or None if rows are padded as usual."""
    return _CURRENT.get()


@contextmanager
def use_layout(layout: Layout) -> Iterator[None]:
    """Make `layout` the current one."""
    token = _CURRENT.set(layout)
    try:
        yield
    finally:
        _CURRENT.reset(token)


# Without a gradient: blocks of rows of equal length -------------------------------------------------------------------


@dataclass(frozen=True)
class RowBlock:
    """Consecutive rows that all have the same number of queries and of keys."""

    rows: int
    queries: int
    keys: int


def row_blocks(queries: Array, keys: Array) -> list[RowBlock]:
    """Split all rows, in their order, into blocks that are as long as possible.

    >>> row_blocks(np.array([7, 7, 2]), np.array([7, 7, 2]))
    [RowBlock(rows=2, queries=7, keys=7), RowBlock(rows=1, queries=2, keys=2)]
    """
    sizes = np.stack([queries, keys], 1)
    starts = np.flatnonzero(np.append(True, (sizes[1:] != sizes[:-1]).any(1)))
    counts = np.diff(starts, append=len(sizes))
    return [RowBlock(int(n), *map(int, sizes[start])) for n, start in zip(counts, starts, strict=True)]


# Training: groups of rows of similar length ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Group:
    """b rows that attention computes together, padded to `queries` and `keys` tokens.

    Indices are into (T * heads, d), where each head's part of a token is one line.

    Attributes:
        query_index: (b * heads * queries,) the line at each slot; an arbitrary one where padded.
        gradient_index: the same, but T * heads (one past the last line) where padded.
        key_index: (b * heads * keys,) the line at each slot; an arbitrary one where padded.
        key_mask: (b, 1, 1, keys) float32, `MASKED_SCORE` where a key is padding, else 0; None without padding.
        some_without_keys: True if a row has no key at all.
    """

    rows: int
    queries: int
    keys: int
    query_index: torch.Tensor
    gradient_index: torch.Tensor
    key_index: torch.Tensor
    key_mask: torch.Tensor | None
    some_without_keys: bool = False


@dataclass(frozen=True, eq=False)
class Grouping:
    """All groups of a batch.

    Attributes:
        query_slots: (T_q * heads,) the slot of each packed query, where the groups' slots are numbered one after the
            other.
        key_slots: (T_k * heads,) the same for keys.
        heads: the number of attention heads.
    """

    groups: tuple[Group, ...]
    query_slots: torch.Tensor
    key_slots: torch.Tensor
    heads: int

    @cached_property
    def query_sizes(self) -> list[int]:
        """The number of query slots of each group."""
        return [self.heads * group.rows * group.queries for group in self.groups]

    @cached_property
    def key_sizes(self) -> list[int]:
        """The number of key slots of each group."""
        return [self.heads * group.rows * group.keys for group in self.groups]


def group_rows(queries: Array, keys: Array, *, heads: int, device: torch.device) -> Grouping:
    """Compute the cheapest grouping of B rows with these numbers of queries and keys."""
    groups = []
    sides = [_Side(lengths, heads) for lengths in (queries, keys)]
    for rows in _partition(queries, keys):
        (query_index, query_real), (key_index, key_real) = (side.add_group(rows) for side in sides)
        gradient_index = np.where(query_real[:, None], query_index, sides[0].tokens * heads)
        key_mask = np.where(key_real, 0.0, MASKED_SCORE).astype(np.float32)[:, None, None]
        groups.append(
            Group(
                rows=len(rows),
                queries=query_real.shape[1],
                keys=key_real.shape[1],
                query_index=on_device(query_index.ravel(), device),
                gradient_index=on_device(gradient_index.ravel(), device),
                key_index=on_device(key_index.ravel(), device),
                key_mask=None if key_real.all() else on_device(key_mask, device),
                some_without_keys=not (key_real.any(1).all() or key_real.all()),
            )
        )
    query_slots, key_slots = (on_device(side.slots.ravel(), device) for side in sides)
    return Grouping(tuple(groups), query_slots, key_slots, heads)


class _Side:
    """The queries or the keys of all rows, assigned to slots group by group."""

    def __init__(self, lengths: Array, heads: int) -> None:
        self.lengths, self.heads = lengths, heads
        self.tokens, self._next_slot = int(lengths.sum()), 0
        self.slots = np.zeros((self.tokens, heads), np.int64)
        # An empty row at the end has no first token.
        self._first = np.minimum(np.cumsum(lengths) - lengths, max(self.tokens - 1, 0))

    def add_group(self, rows: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Assign the next slots to a group of rows.

        Returns:
            (b, heads, L) the line of (T * heads, d) for each slot, that of the row's first token where padded; and
            (b, L) True where a slot is real.
        """
        lengths = self.lengths[rows]
        column = np.arange(_round_up(lengths).max(initial=0))
        real = column < lengths[:, None]
        token = np.where(real, column, 0) + self._first[rows][:, None]
        index = token[:, None] * self.heads + np.arange(self.heads)[:, None]
        slots = self._next_slot + np.arange(index.size).reshape(index.shape)
        self.slots[token[real]] = slots.transpose(0, 2, 1)[real]
        self._next_slot += index.size
        return index, real


def _partition(queries: Array, keys: Array) -> list[Array]:
    """Partition the rows so that the total cost is least, by dynamic programming over the rows sorted by length.

    A group of b rows whose longest has L queries or keys costs `GROUP_COST + b * L^2`, with L rounded up to a multiple
    of `LENGTH_MULTIPLE`. Groups are sorted by their first row. Rows without queries and keys are in no group.
    """
    longest = _round_up(np.maximum(queries, keys))
    order = np.lexsort((keys, queries, longest))[int((longest == 0).sum()) :]
    squares = longest[order] ** 2
    # Of the first n rows: the least cost, and where their last group begins.
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


def _round_up(lengths: Array) -> Array:
    return -(-lengths // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def on_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array to the device; from pinned memory, so that the host does not wait for a GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
