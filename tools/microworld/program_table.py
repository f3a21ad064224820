"""The table that a program works on, and the parts of a step."""

from __future__ import annotations

from dataclasses import dataclass

from tools.microworld.draws import Draws
from tools.microworld.program_words import Subject


@dataclass
class Table:
    """The data frame of a program. Steps add columns to it."""

    subject: Subject
    frame: str
    measures: list[str]
    groups: list[str]

    def measure(self, draws: Draws) -> str:
        """Draw a measure: the newest half of the time, so that a step uses the result of the step before it."""
        return self.measures[-1] if draws.chance(0.5) else draws.pick(self.measures)

    def two(self, draws: Draws) -> tuple[str, str]:
        """Draw two different measures."""
        first = self.measures.index(self.measure(draws))
        second = (first + 1 + draws.below(len(self.measures) - 1)) % len(self.measures)
        return self.measures[first], self.measures[second]

    def group(self, draws: Draws) -> str:
        return draws.pick(self.groups)

    def column(self, name: str) -> str:
        return f'{self.frame}["{name}"]'


@dataclass(frozen=True)
class Step:
    """A few lines of a program.

    Attributes:
        kind: a key of `VERBS`.
        says: a description, for a comment or docstring.
        lines: the code.
        uses: names that must be imported.
        reads: variables that must exist.
        changes: True if it assigns the frame.
        path: the literal path that it reads, if any.
        defines: True if its lines are a function and its call.
    """

    kind: str
    says: str
    lines: tuple[str, ...]
    uses: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    changes: bool = False
    path: str = ""
    defines: bool = False
