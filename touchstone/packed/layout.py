"""Which token of a packed batch belongs to which row.

A packed batch is one row of all the real tokens of B rows, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from touchstone.packed.grouping import Grouping, Run, grouped, on_device, runs_of
from touchstone.stages.ragged import Array

Size = Callable[[int], int]
"""Of a number of tokens, the number that a batch of so many is filled up to."""


def unfilled(tokens: int) -> int:
    return tokens


def rounded(tokens: int) -> int:
    """For bfloat16 on a CPU, whose library (oneDNN) makes a kernel for each size of a product when it first meets it,
    in longer than the product takes, and forgets all but the last thousand.

    >>> [rounded(tokens) for tokens in (1, 337, 513, 2500)]
    [32, 352, 576, 2560]
    """
    step = min(max(1 << max((tokens - 1).bit_length() - 4, 0), 32), 128)
    return -(-tokens // step) * step


@dataclass(frozen=True, eq=False)
class Segments:
    """The rows of a padded batch, one after the other without their padding: row i is tokens `offsets[i]` to
    `offsets[i + 1]`.

    Attributes:
        mask: (B, T) bool, True where real, on the host.
        device: where the indices are wanted.
        fill: tokens of a row of their own, after all others, that nobody asks about: to have one of a few sizes. None:
            there is no such row.
    """

    mask: npt.NDArray[np.bool_]
    device: torch.device
    fill: int | None = None

    @cached_property
    def lengths(self) -> Array:
        lengths = np.asarray(self.mask.sum(1), dtype=np.int64)
        return lengths if self.fill is None else np.append(lengths, self.fill)

    @property
    def tokens(self) -> int:
        return int(self.offsets[-1])

    @cached_property
    def offsets(self) -> Array:
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @cached_property
    def padded(self) -> bool:
        return not self.mask.all()

    @cached_property
    def positions(self) -> torch.Tensor:
        """(T,) the place of each token in its row; 0 where filled up, for a model may not know as many places."""
        places = np.arange(self.tokens) - np.repeat(self.offsets[:-1], self.lengths)
        places[self.tokens - (self.fill or 0) :] = 0
        return on_device(places, self.device)

    @cached_property
    def real(self) -> torch.Tensor:
        """(T,) where each token was in the padded batch, flattened; without those that fill it up."""
        return on_device(np.flatnonzero(self.mask), self.device)

    @cached_property
    def _taken(self) -> torch.Tensor:
        """(T,) the same, and the first token as often as it takes to fill up."""
        real = np.flatnonzero(self.mask)
        return on_device(np.append(real, np.repeat(real[:1], self.fill)), self.device) if self.fill else self.real

    @cached_property
    def rank(self) -> torch.Tensor:
        """(B * T,) the token that each real place of the padded batch, flattened, has become."""
        return on_device(np.cumsum(self.mask.ravel()) - 1, self.device)

    @cached_property
    def bounds(self) -> tuple[torch.Tensor, int]:
        """(B + 1,) int32 offsets, and the longest row: what a kernel for packed rows wants."""
        return on_device(self.offsets.astype(np.int32), self.device), int(self.lengths.max(initial=0))

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """(1, T) of (B, T): the real places, and some token where filled up."""
        flat = padded.flatten()
        return (flat.index_select(0, self._taken) if self.padded else flat)[None]

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """(B, T, ...) of (T', ...): zero at padding."""
        if self.padded:
            empty = packed.new_zeros((self.mask.size, *packed.shape[1:]))
            packed = empty.index_copy(0, self.real, packed[: len(self.real)])
        return packed.view(*self.mask.shape, *packed.shape[1:])


@dataclass(frozen=True, eq=False)
class Layout:
    """A packed batch.

    Attributes:
        source: the rows of `input_ids`.
        target: the rows of `decoder_input_ids`, where there are some.
    """

    source: Segments
    target: Segments | None = None
    _groupings: dict[tuple[int, int, int], Grouping] = field(default_factory=dict)
    _runs: dict[tuple[int, int], list[Run]] = field(default_factory=dict)

    @property
    def predicted(self) -> Segments:
        """The rows that a model has logits for."""
        return self.source if self.target is None else self.target

    @classmethod
    def of(
        cls,
        mask: torch.Tensor,
        *,
        decoder_mask: torch.Tensor | None = None,
        device: torch.device | None = None,
        size: Size = unfilled,
    ) -> Layout:
        """From (B, T) masks, 1 where real. Masks on the host spare a wait for the device.

        Args:
            size: what ragged rows are filled up to. Rows of one length come in few sizes as they are.
        """
        masks = [each.cpu().numpy().astype(bool) for each in (mask, decoder_mask) if each is not None]
        counts = [0 if each.all() else int(each.sum()) for each in masks]
        fills = [size(count) - count if count else 0 for count in counts]
        source, *target = (
            Segments(each, device or mask.device, fill if any(fills) else None)
            for each, fill in zip(masks, fills, strict=True)
        )
        return cls(source, target[0] if target else None)

    def grouping(self, queries: Segments, keys: Segments, *, heads: int) -> Grouping:
        """How `queries` attend to `keys` where a gradient is wanted, made once a batch."""
        which = (id(queries), id(keys), heads)
        if which not in self._groupings:
            self._groupings[which] = grouped(queries.lengths, keys.lengths, heads=heads, device=queries.device)
        return self._groupings[which]

    def runs(self, queries: Segments, keys: Segments) -> list[Run]:
        """The same where none is."""
        which = (id(queries), id(keys))
        if which not in self._runs:
            self._runs[which] = runs_of(queries.lengths, keys.lengths)
        return self._runs[which]


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
