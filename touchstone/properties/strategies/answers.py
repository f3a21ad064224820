"""Strategies for the answers of question answering: `best_spans`, `pick_answer` and `squad_scores`."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from touchstone.properties.domain import choice
from touchstone.properties.strategies.defaults import without_defaults

Pair = tuple[int, int]
Span = tuple[int, int, int, float]

TEXT = "naïve cafe\u0301s in 東京都 \u05e9\u05dc\u05d5\u05dd, 👩\u200d👩\u200d👧 (a.k.a. \u201cthe  B-52s\u201d)\n"
LEVELS = tuple(step / 2 for step in range(-8, 9))
"""Logits that add up without rounding, so that the order of addition does not matter. Sums are often equal."""


@dataclass(frozen=True)
class Scored:
    """Arguments of `best_spans` and `pick_answer`: up to three windows of a context with their logits."""

    start_logits: list[list[float]]
    end_logits: list[list[float]]
    offsets: list[list[Pair | None]]
    cls: list[int]
    n_best: int
    max_answer_length: int
    brief: bool
    context: str = TEXT

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
        """All valid spans, by brute force, in the contract's order."""
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
    def best(self) -> list[Span]:
        """The spans with the best score."""
        spans = self.spans
        return [span for span in spans if span[3] == spans[0][3]]

    @property
    def null(self) -> float:
        """The score of "no answer"."""
        scores = [s[at] + e[at] for s, e, at in zip(self.start_logits, self.end_logits, self.cls, strict=True)]
        return min(scores, default=0.0)

    def with_(self, **changes: Any) -> Scored:
        return replace(self, **changes)


@st.composite
def scored_windows(draw: DrawFn, *, least: int = 1, most: int = 3, answerable: bool = True) -> Scored:
    """Windows of up to 9 tokens of `TEXT`; some tokens have no characters.

    Args:
        least, most: number of windows.
        answerable: the windows contain tokens of the context.
    """
    position, tokens = 0, []
    step = st.tuples(st.sampled_from((0, 0, 1)), st.sampled_from((1, 2, 1, 3, 0)))
    for gap, size in draw(st.lists(step, min_size=1, max_size=14)):
        start, end = position + gap, position + gap + size
        tokens.append((start, min(end, len(TEXT))))
        position = end
    level = st.sampled_from(draw(st.sampled_from((LEVELS, LEVELS, LEVELS[6:11], (*LEVELS, -math.inf)))))
    start_logits, end_logits, offsets, cls = [], [], [], []
    for first in draw(st.lists(st.integers(0, len(tokens) - 1), min_size=least, max_size=most)):
        inner = tokens[first : first + draw(st.integers(1, 9))] if answerable else []
        before, after = draw(st.integers(1, 3)), draw(st.integers(0, 1))
        row: list[Pair | None] = [*[None] * before, *inner, *[None] * after]
        if not answerable and draw(st.booleans()):
            row.append((3, 3))
        logits = st.lists(level, min_size=len(row), max_size=len(row))
        offsets.append(row)
        start_logits.append(draw(logits))
        end_logits.append(draw(logits))
        cls.append(draw(st.sampled_from([position for position, pair in enumerate(row) if pair is None])))
    n_best, longest = draw(st.sampled_from((20, 1, 3, 60))), draw(st.sampled_from((30, 1, 2, 3, 5)))
    return Scored(start_logits, end_logits, offsets, cls, n_best, longest, draw(st.booleans()))


LONG = " ".join(f"w{number}" for number in range(400))
"""A context as long as those of SQuAD."""
LONG_OFFSETS = [match.span() for match in re.finditer(r"\S+", LONG)]


@st.composite
def long_windows(draw: DrawFn) -> Scored:
    """One or two windows of realistic size, in which short cuts miss the best span.

    The likeliest starts may all lie behind the likeliest ends, as in a model that is not sure: then the best span is
    made of neither. Or the best span is as long as an answer may be, and a longer one would score more.
    """
    longest, brief = draw(st.sampled_from((30, 30, 15, 40))), draw(st.booleans())
    longest = 30 if brief else longest
    rows: dict[str, list[Any]] = {"start": [], "end": [], "offsets": [], "cls": []}
    for number in range(draw(st.integers(1, 2))):
        size, question = draw(st.integers(90, 180)), draw(st.integers(2, 12))
        first = number * 100
        generator = random.Random(draw(st.integers(0, 2**16)))
        start, end = ([generator.choice(LEVELS) for _ in range(question + size)] for _ in range(2))
        kind = draw(st.sampled_from(("apart", "apart", "long", "plain")))
        if kind == "apart":
            middle = question + size // 2
            start[middle:] = [logit + 20 for logit in start[middle:]]
            end[:middle] = [logit + 20 for logit in end[:middle]]
        elif kind == "long":
            place = question + draw(st.integers(0, size - longest - 1))
            start[place] += 30
            end[place + longest - 1] += 30
            end[place + longest] += 40
        rows["start"].append(start)
        rows["end"].append(end)
        rows["offsets"].append([*[None] * question, *LONG_OFFSETS[first : first + size]])
        rows["cls"].append(0)
    return Scored(rows["start"], rows["end"], rows["offsets"], rows["cls"], 20, longest, brief, LONG)


@st.composite
def pointed_windows(draw: DrawFn) -> tuple[Scored, Span]:
    """Windows whose logits point to one valid span and to nothing else."""
    case = draw(scored_windows())
    if not case.spans:  # no token has characters
        case = case.with_(offsets=[[pair and (0, 2) for pair in row] for row in case.offsets])
    window, first, last, _ = draw(st.sampled_from(case.spans))
    start = [[0.0] * len(row) for row in case.offsets]
    end = [[0.0] * len(row) for row in case.offsets]
    start[window][first] = end[window][last] = 8.0
    return case.with_(start_logits=start, end_logits=end), (window, first, last, 16.0)


# SQuAD scores ---------------------------------------------------------------------------------------------------------

WORDS = (
    "cat", "dog", "cat", "the", "a", "an", "The", "A", "An", "theatre", "banana", "U.S.", "3.14", "e-mail", "isn't",
    "\u201cthe\u201d", "\u2014", "!", "the.", "Cat", "CAT,", "ÎLE", "Straße", "a\u0301", "東京", "the東京", "_a_",
    "«an»", "answer", "cats",
)  # fmt: skip
"""Articles alone, inside words and inside non-ASCII quotation marks; punctuation alone and inside words."""
BLANKS = (" ", " ", " ", "  ", "\t", "\n", "\u00a0", "\u3000")


@dataclass(frozen=True)
class Examples:
    """Arguments of `squad_scores`."""

    predictions: list[str]
    references: list[list[str]]

    @property
    def arguments(self) -> dict[str, Any]:
        return {"references": self.references}

    def with_(self, **changes: Any) -> Examples:
        return replace(self, **changes)


def answer_texts() -> SearchStrategy[str]:
    """Up to five words with blanks between them, sometimes with a blank in front."""
    parts = st.lists(st.tuples(st.sampled_from(BLANKS), st.sampled_from(WORDS)), max_size=5)
    joined = parts.map(lambda parts: "".join(blank + word for blank, word in parts))
    return st.builds(lambda text, front: text if front else text[1:], joined, st.sampled_from((False, False, True)))


@st.composite
def similar_texts(draw: DrawFn, text: str) -> str:
    """The text itself; with a word added, doubled or removed; with its words reversed; or an unrelated text."""
    words = text.split()
    kind = draw(st.sampled_from(("same", "added", "doubled", "removed", "reversed", "unrelated", "unrelated")))
    if kind == "added":
        return f"{text} {draw(st.sampled_from(WORDS))}"
    if kind == "doubled" and words:
        return f"{text} {words[0]}"
    if kind == "removed":
        return " ".join(words[:-1])
    if kind == "reversed":
        return " ".join(reversed(words))
    return draw(answer_texts()) if kind == "unrelated" else text


@st.composite
def squad_examples(draw: DrawFn, *, least: int = 0) -> Examples:
    """One to four predictions, each with `least` to three references, similar to it or not.

    Every example has a reference if the implementation knows no questions without an answer.
    """
    least = max(least, int(choice("no_answer") == "v1.1"))
    predictions = draw(st.lists(answer_texts(), min_size=1, max_size=4))
    references = [draw(st.lists(similar_texts(text), min_size=least, max_size=3)) for text in predictions]
    return Examples(predictions, references)
