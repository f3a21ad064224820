"""How a case is drawn: one block of random bytes, read choice by choice.

Hypothesis spends most of its time on bookkeeping for each draw, and most of its examples on mutating earlier ones where
a case is made of many like draws: of 50 cases some ten were independent of each other. A case that is a function of one
block costs one draw and is independent of the others. It shrinks as the block does, byte by byte to zero, and 0 always
stands for the simplest choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

_blocks = st.binary(min_size=192, max_size=192)  # more than the longest case reads


class Choices:
    """Reads a block; behind its end every choice is the simplest."""

    def __init__(self, block: bytes) -> None:
        self._bytes = iter(block)

    def below(self, n: int) -> int:
        """0 to n - 1, for n up to 256: nearly uniform, which is all a search needs."""
        return next(self._bytes, 0) % n

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def flip(self) -> bool:
        return self.below(2) == 1

    def of(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Any order; the one given is the simplest."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in items]


def drawn(build: Callable[[Choices], T]) -> SearchStrategy[T]:
    """The strategy of what `build` makes of the choices it is given."""
    return _blocks.map(lambda block: build(Choices(block)))
