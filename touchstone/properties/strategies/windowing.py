"""Cases for `make_windows` and `answer_positions`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis.strategies import SearchStrategy

from touchstone.properties.strategies.choices import Choices, drawn
from touchstone.properties.strategies.text import AWKWARD_WORDS
from touchstone.properties.tokenizer_families import FAMILIES, encode_text

Pair = tuple[int, int]
Template = tuple[tuple["int | str", int], ...]

CLS, SEP = 1, 2
TEMPLATES: dict[str, Template] = {
    "BERT": ((CLS, 0), ("question", 0), (SEP, 0), ("context", 1), (SEP, 1)),
    "RoBERTa": ((CLS, 0), ("question", 0), (SEP, 0), (SEP, 0), ("context", 0), (SEP, 0)),
    "XLNet": (("context", 0), (SEP, 0), ("question", 1), (SEP, 1), (CLS, 2)),
    "no special token at the end": ((CLS, 0), ("question", 0), (SEP, 1), ("context", 1)),
    "no special tokens": (("question", 0), ("context", 1)),
}
FIRST_OF_QUESTION, FIRST_OF_CONTEXT = 500, 1000
"""The first token of each has this id, the next ones count on: an id says where it came from."""

WORDS = tuple(word for word in AWKWARD_WORDS if len(word) <= 20)
BLANKS = (" ", " ", " ", "  ", "\n", "")


def tokens_of_text(choose: Choices, *, least: int = 0) -> tuple[str, str, list[Pair]]:
    """A text of up to six awkward words, the family of a tokenizer, and the characters of each of its tokens."""
    family = choose.of(tuple(FAMILIES))
    text = ""
    for _ in choose.several(least, 6):
        text += choose.of(WORDS) + choose.of(BLANKS)
    offsets = list(encode_text(family, text)[1])[:40]
    if offsets and choose.below(4) == 0:  # some tokenizers make tokens that stand for no character
        at = choose.below(len(offsets))
        offsets.insert(at, (offsets[at][0], offsets[at][0]))
    return text, family, offsets


@dataclass(frozen=True)
class Windowing:
    """Arguments of `make_windows`, and the text they come from."""

    text: str
    family: str
    offsets: list[Pair]
    question: list[int]
    template: Template
    room: int
    stride: int

    @property
    def context(self) -> list[int]:
        return list(range(FIRST_OF_CONTEXT, FIRST_OF_CONTEXT + len(self.offsets)))

    @property
    def special(self) -> int:
        return len(self.template) - 2

    @property
    def max_length(self) -> int:
        return self.room + len(self.question) + self.special

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "offsets": self.offsets,
            "question": self.question,
            "template": self.template,
            "max_length": self.max_length,
            "stride": self.stride,
        }

    @property
    def remarks(self) -> dict[str, str]:
        return {"text": repr(self.text), "tokenizer": self.family, "room": str(self.room)}

    def with_(self, **changes: Any) -> Windowing:
        return replace(self, **changes)


def windowing(choose: Choices, *, least: int = 0) -> Windowing:
    question = list(range(FIRST_OF_QUESTION, FIRST_OF_QUESTION + choose.below(5)))
    template, room = choose.of(tuple(TEMPLATES.values())), choose.between(1, 9)
    stride = choose.below(room)
    text, family, offsets = tokens_of_text(choose, least=least)
    return Windowing(text, family, offsets, question, template, room, stride)


def windowings(*, least: int = 0) -> SearchStrategy[Windowing]:
    """A text of at least so many words in windows with room for 1 to 9 tokens, in any of five templates."""
    return drawn(lambda choose: windowing(choose, least=least))


def shared_windowings() -> SearchStrategy[tuple[list[Windowing], list[int]]]:
    """Up to three contexts and up to four questions about them, alike in template, length and stride.

    Each case is a context with a question of its own; the numbers say which of the contexts each question is about.
    """

    def build(choose: Choices) -> tuple[list[Windowing], list[int]]:
        first = windowing(choose)
        longest = 4
        length, cases = longest + first.room + first.special, []
        for _ in range(choose.between(1, 3)):
            text, family, offsets = tokens_of_text(choose)
            cases.append(first.with_(text=text, family=family, offsets=offsets))
        about = [choose.below(len(cases)) for _ in choose.several(1, 4)]
        asked = []
        for context in about:
            size = choose.below(longest + 1)
            question = list(range(FIRST_OF_QUESTION, FIRST_OF_QUESTION + size))
            asked.append(cases[context].with_(question=question, room=length - size - first.special))
        return asked, about

    return drawn(build)


@dataclass(frozen=True)
class Answered:
    """Arguments of `answer_positions`: a window of a text, and answers in the text."""

    text: str
    family: str
    offsets: list[Pair | None]
    answers: list[Pair]
    cls: int

    @property
    def arguments(self) -> dict[str, Any]:
        return {"offsets": self.offsets, "cls": self.cls}

    @property
    def remarks(self) -> dict[str, str]:
        answers = [self.text[start:end] for start, end in self.answers]
        return {"text": repr(self.text), "answers": repr(answers), "tokenizer": self.family}

    def with_(self, **changes: Any) -> Answered:
        return replace(self, **changes)


def answer_in(choose: Choices, text: str, offsets: list[Pair]) -> Pair:
    """Characters of a run of tokens, part of one token, or any run of characters. The text has one at least."""
    kind = choose.below(8)
    real = [pair for pair in offsets if pair[0] < pair[1]]
    if kind >= 2 and real:
        first = choose.below(len(real))
        last = min(first + choose.below(5), len(real) - 1)
        start, end = real[first][0], real[last][1]
        if kind >= 6 and end - start > 1:  # the answer begins, or ends, within a token
            start, end = (start + 1, end) if choose.flip() else (start, end - 1)
        if start < end:
            return start, end
    start = choose.below(min(len(text), 256))
    return start, min(start + choose.between(1, 9), len(text))


def answered_window(choose: Choices, *, answers: tuple[int, int]) -> Answered:
    text, family, offsets = tokens_of_text(choose, least=1)
    size = len(offsets)
    first = choose.below(size + 1) if choose.flip() else 0
    last = min(first + choose.between(0, 12), size)
    before, after = choose.between(1, 4), choose.below(3)
    window: list[Pair | None] = [*[None] * before, *offsets[first:last], *[None] * after]
    outside = [position for position, pair in enumerate(window) if pair is None]
    cls = choose.of(outside)
    spans = [answer_in(choose, text, offsets) for _ in choose.several(*answers)]
    return Answered(text, family, window, spans, cls)


def answered_windows(*, least: int = 0, most: int = 3) -> SearchStrategy[Answered]:
    """A window of a text with so many answers, in it, across its ends or outside of it; `cls` anywhere."""
    return drawn(lambda choose: answered_window(choose, answers=(least, most)))


def labelled_span(offsets: list[Pair | None], answers: list[Pair]) -> tuple[int, int] | None:
    """First and last token of the first answer that is whole in the window, by sets of characters."""
    tokens = {position: set(range(*pair)) for position, pair in enumerate(offsets) if pair and pair[0] < pair[1]}
    for start, end in answers:
        if not tokens or min(tokens[min(tokens)]) > start or max(tokens[max(tokens)]) < end - 1:
            continue
        wanted = [position for position, characters in tokens.items() if characters & set(range(start, end))]
        if wanted:
            return min(wanted), max(wanted)
    return None
