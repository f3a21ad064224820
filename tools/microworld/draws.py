"""Random draws that are the same on every platform and with every Python version.

A generator is named by a key, so any row can be drawn without the rows before it. The generator is SplitMix64, see
`touchstone.stages.draws`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from touchstone.sources.installed import state_of
from touchstone.stages.draws import GAMMA, MASK, mix

T = TypeVar("T")


class Draws:
    """An endless sequence of draws that depends on its key alone."""

    def __init__(self, *key: int | str) -> None:
        self._state = state_of(*key)

    def bits(self) -> int:
        """Return 64 random bits."""
        self._state = (self._state + GAMMA) & MASK
        return mix(self._state)

    def below(self, n: int) -> int:
        """Return an integer in [0, n), uniform up to a bias below n / 2**64."""
        return (self.bits() * n) >> 64

    def between(self, low: int, high: int) -> int:
        """Return an integer in [low, high], both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.bits() < probability * 2.0**64

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items, each with the same probability."""
        return items[self.below(len(items))]
