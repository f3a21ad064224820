"""Cases for `best_spans` and `pick_answer`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from hypothesis.strategies import SearchStrategy

from touchstone.properties.strategies.choices import Choices, drawn
from touchstone.properties.strategies.defaults import without_defaults

Pair = tuple[int, int]
Span = tuple[int, int, int, float]

TEXT = "naïve cafe\u0301s in 東京都 \u05e9\u05dc\u05d5\u05dd, 👩\u200d👩\u200d👧 (a.k.a. \u201cthe  B-52s\u201d)\n"
LEVELS = tuple(step / 2 for step in range(-8, 9))
"""Logits that add up without rounding, so that nobody can tell in which order they were added. They tie often."""


@dataclass(frozen=True)
class Scored:
    """Arguments of `best_spans` and `pick_answer`: up to three windows of `TEXT` with their logits."""

    start_logits: list[list[float]]
    end_logits: list[list[float]]
    offsets: list[list[Pair | None]]
    cls: list[int]
    n_best: int
    max_answer_length: int
    brief: bool

    @property
    def logits(self) -> dict[str, Any]:
        return {"end_logits": self.end_logits, "offsets": self.offsets}

    @property
    def limits(self) -> dict[str, Any]:
        limits = {"n_best": self.n_best, "max_answer_length": self.max_answer_length}
        return without_defaults(limits, brief=self.brief)

    @property
    def length(self) -> dict[str, Any]:
        return without_defaults({"max_answer_length": self.max_answer_length}, brief=self.brief)

    @property
    def spans(self) -> list[Span]:
        """Every valid span, by brute force, in the contract's order."""
        found = [
            (window, first, last, self.start_logits[window][first] + self.end_logits[window][last])
            for window, pairs in enumerate(self.offsets)
            for first, left in enumerate(pairs)
            for last, right in enumerate(pairs)
            if left and right and left[0] < left[1] and right[0] < right[1]
            if 0 <= last - first < self.max_answer_length
        ]
        return sorted(found, key=lambda span: (-span[3], span))

    @property
    def null(self) -> float:
        """The score of "no answer"."""
        scores = [s[at] + e[at] for s, e, at in zip(self.start_logits, self.end_logits, self.cls, strict=True)]
        return min(scores, default=0.0)

    def with_(self, **changes: Any) -> Scored:
        return replace(self, **changes)


def scored(choose: Choices, *, windows: tuple[int, int], answerable: bool = True) -> Scored:
    position, tokens = 0, []
    for _ in choose.several(1, 14):
        position += choose.of((0, 0, 1))
        end = position + choose.of((1, 2, 1, 3, 0))
        tokens.append((position, min(end, len(TEXT))))
        position = end
    levels = choose.of((LEVELS, LEVELS, LEVELS[6:11], (*LEVELS, -math.inf)))
    start_logits, end_logits, offsets, cls = [], [], [], []
    for _ in choose.several(*windows):
        first = choose.below(len(tokens))
        inner = tokens[first : first + choose.between(1, 9)] if answerable else []
        row: list[Pair | None] = [*[None] * choose.between(1, 3), *inner, *[None] * choose.below(2)]
        if not answerable and choose.flip():
            row.append((3, 3))
        outside = [position for position, pair in enumerate(row) if pair is None]
        offsets.append(row)
        start_logits.append([choose.of(levels) for _ in row])
        end_logits.append([choose.of(levels) for _ in row])
        cls.append(choose.of(outside))
    n_best, longest = choose.of((20, 1, 3, 60)), choose.of((30, 1, 2, 3, 5))
    return Scored(start_logits, end_logits, offsets, cls, n_best, longest, choose.flip())


def scored_windows(*, least: int = 1, most: int = 3, answerable: bool = True) -> SearchStrategy[Scored]:
    """So many windows of up to 14 tokens of `TEXT`, some of no characters; `answerable`: with tokens of the context."""
    return drawn(lambda choose: scored(choose, windows=(least, most), answerable=answerable))


def pointed_windows() -> SearchStrategy[tuple[Scored, Span]]:
    """Windows whose logits point to one valid span, and to nothing else."""

    def build(choose: Choices) -> tuple[Scored, Span]:
        case = scored(choose, windows=(1, 3))
        spans = case.spans
        if not spans:  # all tokens are of no characters
            case = case.with_(offsets=[[pair and (0, 2) for pair in row] for row in case.offsets])
            spans = case.spans
        window, first, last, _ = spans[choose.below(len(spans))]
        start = [[0.0] * len(row) for row in case.offsets]
        end = [[0.0] * len(row) for row in case.offsets]
        start[window][first] = end[window][last] = 8.0
        return case.with_(start_logits=start, end_logits=end), (window, first, last, 16.0)

    return drawn(build)
