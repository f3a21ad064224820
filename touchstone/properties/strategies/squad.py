"""Cases for `squad_scores`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis.strategies import SearchStrategy

from touchstone.properties.strategies.choices import Choices, drawn

WORDS = (
    "cat", "dog", "cat", "the", "a", "an", "The", "A", "An", "theatre", "banana", "U.S.", "3.14", "e-mail", "isn't",
    "\u201cthe\u201d", "\u2014", "!", "the.", "Cat", "CAT,", "ÎLE", "Straße", "a\u0301", "東京", "the東京", "_a_",
    "«an»", "answer", "cats",
)  # fmt: skip
"""Articles alone, within words and within quotation marks that are not ASCII; punctuation alone and within words."""
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


def text_of(choose: Choices, *, most: int = 5) -> str:
    text = choose.of(("", "", " "))
    for number in choose.several(0, most):
        text += (choose.of(BLANKS) if number else "") + choose.of(WORDS)
    return text


def near(choose: Choices, text: str) -> str:
    """The text itself; with another word; with a word twice; without its last; in another order; or another text."""
    words = text.split()
    kind = choose.below(7)
    if kind == 1:
        return f"{text} {choose.of(WORDS)}"
    if kind == 2 and words:
        return f"{text} {words[0]}"
    if kind == 3:
        return " ".join(words[:-1])
    if kind == 4:
        return " ".join(reversed(words))
    return text_of(choose) if kind >= 5 else text


def examples(choose: Choices, *, least: int = 1) -> Examples:
    predictions, references = [], []
    for _ in choose.several(1, 4):
        prediction = text_of(choose)
        predictions.append(prediction)
        references.append([near(choose, prediction) for _ in choose.several(least, 3)])
    return Examples(predictions, references)


def squad_examples(*, least: int = 0) -> SearchStrategy[Examples]:
    """One to four predictions, each with `least` to three references that are like it or not."""
    return drawn(lambda choose: examples(choose, least=least))
