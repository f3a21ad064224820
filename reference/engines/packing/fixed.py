"""Rows at one place in memory, whichever batch they are of: what a recording reads instead of a batch's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from reference.engines.packing.layout import Segments
from reference.ragged import Array


class NotRecordable(Exception):
    """A model's body depends on more of a batch than a recording can be told (see `recording`): says on what."""


@dataclass(frozen=True, eq=False)
class FixedSegments(Segments):
    """Rows whose tensors stay where they are while batches come and go: a recording reads them.

    Attributes:
        tokens: of all batches alike: what a batch lacks is a row of its own, the last.
        rows: at most, that one among them.
    """

    tokens: int = 0
    rows: int = 1

    @classmethod
    def of(cls, *, tokens: int, rows: int, device: torch.device) -> FixedSegments:
        return cls(np.zeros((0, 0), bool), device, tokens, rows)

    def take(self, batch: Segments) -> None:
        """Hold these rows from now on."""
        count, ends = int(batch.offsets[-1]), batch.bounds[0]
        self.positions[:count].copy_(batch.positions)
        self.bounds[0][: len(ends)].copy_(ends)
        self.bounds[0][len(ends) : -1].fill_(count)

    @property
    def lengths(self) -> Array:
        raise NotRecordable("it asks for the lengths of rows")

    @cached_property
    def positions(self) -> torch.Tensor:
        return torch.zeros(self.tokens, dtype=torch.int64, device=self.device)

    @cached_property
    def bounds(self) -> tuple[torch.Tensor, int]:
        """No row is longer than all tokens. A kernel starts blocks that find nothing to do, which costs little."""
        ends = torch.zeros(self.rows + 1, dtype=torch.int32, device=self.device)
        ends[-1] = self.tokens
        return ends, self.tokens
