"""The subjects of the programs, with their measures and groups, and the names made of them.

A name is a compound such as `net_price`. It belongs to one split, by a digest of its spelling. Its words occur in both
splits.
"""

from __future__ import annotations

from dataclasses import dataclass

from tools.microworld.draws import Draws
from tools.microworld.names import Split, split_of


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@dataclass(frozen=True)
class Subject:
    """The subject of a program.

    Attributes:
        row: the thing that one row of its table describes.
        measures: columns with numbers.
        groups: columns that put rows into groups.
        files: first words of the names of its files.
    """

    row: str
    measures: tuple[str, ...]
    groups: tuple[str, ...]
    files: tuple[str, ...]


SUBJECTS = (
    Subject(
        "sale",
        _words("price amount discount tax margin cost revenue quantity"),
        _words("store region product customer"),
        _words("sales orders receipts"),
    ),
    Subject(
        "station",
        _words("temperature rain wind pressure humidity snow sunshine"),
        _words("station city season month"),
        _words("weather climate rainfall"),
    ),
    Subject(
        "student",
        _words("score grade age hours credits absences rank"),
        _words("school class teacher subject"),
        _words("students exams courses"),
    ),
    Subject(
        "house",
        _words("price area rooms age distance rent height"),
        _words("district street type owner"),
        _words("houses rents flats"),
    ),
    Subject(
        "patient",
        _words("age weight height pulse dose glucose stay"),
        _words("clinic ward doctor drug"),
        _words("patients visits trials"),
    ),
    Subject(
        "match",
        _words("goals shots points cards passes fouls distance"),
        _words("team player league season"),
        _words("matches players results"),
    ),
    Subject(
        "trip",
        _words("distance duration speed fare delay stops fuel"),
        _words("route driver line station"),
        _words("trips buses trains"),
    ),
    Subject(
        "plant",
        _words("width length height weight yield moisture leaves"),
        _words("species field farm soil"),
        _words("plants harvest fields"),
    ),
)
MODIFIERS = _words(
    """
    net gross total mean daily annual raw final base extra local initial weekly monthly first last early late old new
    main side true rough early minor major upper lower inner outer left right north south
    """
)
GROUP_ENDINGS = _words("id name code type kind level label size")
FILE_ENDINGS = _words("data table report export log sample part list a b 2018 2019 2020 2021 2022 2023 2024")
FOLDERS = ("", "", "data/", "input/", "../data/")
FRAMES = _words("df data frame table rows")
VERBS = {
    "load": _words("load read open get fetch"),
    "clean": _words("clean tidy prepare filter fix"),
    "derive": _words("add compute make derive build"),
    "group": _words("summarize group count compare collect"),
    "plot": _words("plot draw show chart"),
    "model": _words("fit train learn predict"),
    "simulate": _words("simulate sample draw repeat"),
    "scale": _words("scale scaled norm clip rank"),
}
NOTES = (
    "TODO: check the units",
    "naïve, but fine",
    "données de 2019",
    "siehe oben",
    "平均を計算する",
    "Δt = 1",
    "✓ checked",
)
"""Rare comments in other scripts, which tokenizers and parsers must accept."""


class ProgramNames:
    """Draws the compound names of one split, each name once."""

    def __init__(self, draws: Draws, *, split: Split) -> None:
        self.draws = draws
        self.split = split
        self.drawn: list[str] = []

    def compound(self, first: tuple[str, ...], second: tuple[str, ...]) -> str:
        while (
            split_of(name := f"{self.draws.pick(first)}_{self.draws.pick(second)}") != self.split or name in self.drawn
        ):
            pass
        self.drawn.append(name)
        return name

    def measure(self, subject: Subject) -> str:
        return self.compound(MODIFIERS, subject.measures)

    def group(self, subject: Subject) -> str:
        return self.compound(subject.groups, GROUP_ENDINGS)

    def file(self, subject: Subject) -> str:
        return self.draws.pick(FOLDERS) + self.compound(subject.files, FILE_ENDINGS)

    def function(self, kind: str, subject: Subject) -> str:
        return self.compound(VERBS[kind], (*subject.files, *subject.measures, subject.row))


def spoken(name: str) -> str:
    """Return a name as it is written in comments and on axes."""
    return name.replace("_", " ")
