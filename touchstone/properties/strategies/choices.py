"""How a case is drawn: one block of random bytes, read choice by choice.

Hypothesis spends most of its time on bookkeeping for each draw, and most of its examples on mutating earlier ones where
a case is made of many like draws: of 50 cases some ten were independent of each other. A case that is a function of one
block costs one draw and is independent of the others. It shrinks as the block does: bytes go to zero, which stands for
the simplest choice, and runs of bytes are cut out, which takes items out of lists (see `several`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

T = TypeVar("T")

_SHORT, _LONG = st.binary(max_size=256), st.binary(min_size=192, max_size=256)  # most cases read fewer than 192


@st.composite
def _blocks(draw: DrawFn) -> bytes:
    """Nearly always long. A long block is also one that `_SHORT` could have given: so a failing one shrinks freely."""
    return draw(_SHORT if draw(st.integers(0, 15)) == 0 else _LONG)


class Choices:
    """Reads a block; behind its end every choice is the simplest."""

    def __init__(self, block: bytes) -> None:
        self._bytes = iter(block)

    def below(self, n: int) -> int:
        """0 to n - 1, for n up to 256: nearly uniform, which is all a search needs."""
        return next(self._bytes, 0) % n

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def several(self, least: int, most: int) -> Iterator[int]:
        """0, 1, 2 ... : between `least` and `most` items, nearer to `most` on average.

        One byte before each item says whether there is one more, so that an item and its byte can be cut out together.
        """
        stop = most - least + 1
        for number in range(most):
            if number >= least and self.below(stop) == 0:
                return
            yield number

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
    return _blocks().map(lambda block: build(Choices(block)))
