"""What a program of the microworld works on, and what one of its steps is."""

from __future__ import annotations

from dataclasses import dataclass

from tools.microworld.draws import Draws
from tools.microworld.program_words import Subject


@dataclass
class Table:
    """The frame of a program: its columns change as steps add to it."""

    subject: Subject
    frame: str
    measures: list[str]
    groups: list[str]

    def measure(self, draws: Draws) -> str:
        """Half of the time the newest: what a step has made is what the next one looks at."""
        return self.measures[-1] if draws.chance(0.5) else draws.pick(self.measures)

    def two(self, draws: Draws) -> tuple[str, str]:
        """Two different measures."""
        first = self.measures.index(self.measure(draws))
        second = (first + 1 + draws.below(len(self.measures) - 1)) % len(self.measures)
        return self.measures[first], self.measures[second]

    def group(self, draws: Draws) -> str:
        return draws.pick(self.groups)

    def column(self, name: str) -> str:
        return f'{self.frame}["{name}"]'


@dataclass(frozen=True)
class Step:
    """A few lines.

    Attributes:
        kind: what it does, a key of `VERBS`.
        says: in words, for a comment or docstring.
        lines: the code.
        uses: names that have to be imported.
        reads: variables that have to be there.
        changes: whether it assigns the frame.
        path: the literal path that it reads, if any.
        defines: whether its lines are a function of their own, with its call.
    """

    kind: str
    says: str
    lines: tuple[str, ...]
    uses: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    changes: bool = False
    path: str = ""
    defines: bool = False
