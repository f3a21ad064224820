"""Strategies for `make_windows` and `answer_positions`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from touchstone.properties.strategies.tags import AWKWARD_WORDS
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
"""Ids of the first token of each. The ids of later tokens count up, so that an id identifies its place."""

WORDS = tuple(word for word in AWKWARD_WORDS if len(word) <= 20)
BLANKS = (" ", " ", " ", "  ", "\n", "")


@st.composite
def tokenized_texts(draw: DrawFn, *, least: int = 0) -> tuple[str, str, list[Pair]]:
    """A text of `least` to six awkward words, the family of a tokenizer, and the characters of each of its tokens."""
    family = draw(st.sampled_from(tuple(FAMILIES)))
    parts = st.tuples(st.sampled_from(WORDS), st.sampled_from(BLANKS))
    text = "".join(word + blank for word, blank in draw(st.lists(parts, min_size=least, max_size=6)))
    offsets = list(encode_text(family, text)[1])[:40]
    if offsets and draw(st.integers(0, 3)) == 3:  # some tokenizers make tokens without characters
        at = draw(st.integers(0, len(offsets) - 1))
        offsets.insert(at, (offsets[at][0], offsets[at][0]))
    return text, family, offsets


@dataclass(frozen=True)
class Windowing:
    """Arguments of `make_windows`, and the text they came from."""

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


@st.composite
def windowings(draw: DrawFn, *, least: int = 0) -> Windowing:
    """A text of at least `least` words in windows with room for 1 to 9 tokens, in any of five templates."""
    question = list(range(FIRST_OF_QUESTION, FIRST_OF_QUESTION + draw(st.integers(0, 4))))
    template, room = draw(st.sampled_from(tuple(TEMPLATES.values()))), draw(st.integers(1, 9))
    stride = draw(st.integers(0, room - 1))
    text, family, offsets = draw(tokenized_texts(least=least))
    return Windowing(text, family, offsets, question, template, room, stride)


@st.composite
def shared_windowings(draw: DrawFn) -> tuple[list[Windowing], list[int]]:
    """Up to four questions about up to three contexts, with the same template, length and stride.

    Each case is a question with its context; the numbers are the indices of the contexts.
    """
    first = draw(windowings())
    longest = 4
    length = longest + first.room + first.special
    contexts = draw(st.lists(tokenized_texts(), min_size=1, max_size=3))
    cases, about = [], []
    asked = st.tuples(st.integers(0, len(contexts) - 1), st.integers(0, longest))
    for context, size in draw(st.lists(asked, min_size=1, max_size=4)):
        text, family, offsets = contexts[context]
        question = list(range(FIRST_OF_QUESTION, FIRST_OF_QUESTION + size))
        room = length - size - first.special
        cases.append(first.with_(text=text, family=family, offsets=offsets, question=question, room=room))
        about.append(context)
    return cases, about


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


@st.composite
def answers_in(draw: DrawFn, text: str, offsets: list[Pair]) -> Pair:
    """The characters of an answer in a text that is not empty.

    It covers whole tokens, begins or ends inside a token, or is any run of characters.
    """
    real = [pair for pair in offsets if pair[0] < pair[1]]
    kind = draw(st.sampled_from(("whole", "part", "whole", "characters"))) if real else "characters"
    if kind != "characters":
        first = draw(st.integers(0, len(real) - 1))
        last = min(first + draw(st.integers(0, 4)), len(real) - 1)
        start, end = real[first][0], real[last][1]
        if kind == "part" and end - start > 1:
            start, end = draw(st.sampled_from([(start + 1, end), (start, end - 1)]))
        if start < end:
            return start, end
    start = draw(st.integers(0, min(len(text), 256) - 1))
    return start, min(start + draw(st.integers(1, 9)), len(text))


@st.composite
def answered_windows(draw: DrawFn, *, least: int = 0, most: int = 3) -> Answered:
    """A window of a text with `least` to `most` answers, inside it, across its ends or outside; `cls` anywhere."""
    text, family, offsets = draw(tokenized_texts(least=1))
    size = len(offsets)
    first = draw(st.just(0) | st.integers(0, size))
    last = min(first + draw(st.integers(0, 12)), size)
    before, after = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    window: list[Pair | None] = [*[None] * before, *offsets[first:last], *[None] * after]
    cls = draw(st.sampled_from([position for position, pair in enumerate(window) if pair is None]))
    answers = draw(st.lists(answers_in(text, offsets), min_size=least, max_size=most))
    return Answered(text, family, window, answers, cls)


def labelled_span(offsets: list[Pair | None], answers: list[Pair]) -> tuple[int, int] | None:
    """Return the first and last token of the first answer that the window contains whole, by sets of characters."""
    tokens = {position: set(range(*pair)) for position, pair in enumerate(offsets) if pair and pair[0] < pair[1]}
    for start, end in answers:
        if not tokens or min(tokens[min(tokens)]) > start or max(tokens[max(tokens)]) < end - 1:
            continue
        wanted = [position for position, characters in tokens.items() if characters & set(range(start, end))]
        if wanted:
            return min(wanted), max(wanted)
    return None
