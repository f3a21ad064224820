"""Rows at one place in memory, whichever batch they are of: what a recording reads instead of a batch's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from touchstone.packed.layout import Segments
from touchstone.stages.ragged import Array


class NotRecordable(Exception):
    """A model's body depends on more of a batch than a recording can be told (see `recording`): says on what."""


@dataclass(frozen=True, eq=False)
class FixedSegments(Segments):
    """Rows whose tensors stay where they are while batches come and go: a recording reads them.

    Attributes:
        size: tokens of all batches alike.
        rows: at most; what a batch has less than that is rows without a token, after its own.
    """

    size: int = 0
    rows: int = 1

    @classmethod
    def of(cls, *, size: int, rows: int, device: torch.device) -> FixedSegments:
        return cls(np.zeros((0, 0), bool), device, None, size, rows)

    def take(self, batch: Segments) -> None:
        """Hold these rows from now on."""
        self.positions.copy_(batch.positions)
        ends = batch.bounds[0]
        self.bounds[0][: len(ends)].copy_(ends)
        self.bounds[0][len(ends) :].fill_(self.size)

    @property
    def lengths(self) -> Array:
        raise NotRecordable("it asks for the lengths of rows")

    @cached_property
    def positions(self) -> torch.Tensor:
        return torch.zeros(self.size, dtype=torch.int64, device=self.device)

    @cached_property
    def bounds(self) -> tuple[torch.Tensor, int]:
        """No row is longer than all tokens. A kernel starts blocks that find nothing to do, which costs little."""
        ends = torch.zeros(self.rows + 1, dtype=torch.int32, device=self.device)
        ends[-1] = self.size
        return ends, self.size
