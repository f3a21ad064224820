"""Random draws that are the same on every platform, Python version and day.

SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): a counter and a
mixing function, nothing but 64-bit integer arithmetic. A generator is named by a key, so any row can be drawn without
those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")

_MASK = 2**64 - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def mix(value: int) -> int:
    """64 bits to 64 well-mixed bits, one to one (SplitMix64's output function)."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def digest(key: int | str) -> int:
    """A key as 64 bits: integers modulo 2**64, text by its UTF-8 bytes."""
    if isinstance(key, int):
        return mix((key + _GOLDEN_GAMMA) & _MASK)
    return _digest_of_text(key)


@lru_cache(2**16)  # a world has few words, and asks for each again and again
def _digest_of_text(text: str) -> int:
    state = 0
    for byte in text.encode("utf-8"):
        state = mix((state ^ byte) + _GOLDEN_GAMMA & _MASK)
    return state


class Draws:
    """An endless row of draws that depends on its key alone."""

    def __init__(self, *key: int | str) -> None:
        state = 0
        for part in key:
            state = mix((state + digest(part) + _GOLDEN_GAMMA) & _MASK)
        self._state = state

    def bits(self) -> int:
        """64 random bits."""
        self._state = (self._state + _GOLDEN_GAMMA) & _MASK
        return mix(self._state)

    def below(self, n: int) -> int:
        """An integer in [0, n), uniform up to a bias below n / 2**64."""
        return (self.bits() * n) >> 64

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.bits() < probability * 2.0**64

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, each equally likely."""
        return items[self.below(len(items))]
