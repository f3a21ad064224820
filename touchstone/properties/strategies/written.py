"""Cases for `bleu`, `rouge`, `split_sentences` and `lead`: texts as models write them, and as they should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis.strategies import SearchStrategy

from touchstone.properties.strategies.choices import Choices, drawn

WORDS = (
    "the", "The", "cat", "cats", "sat", "sitting", "runs", "running", "on", "mat", "mat.", "mat,", "(on)", "3.14",
    "U.S.", "10-12", "don't", "café", "state-of-the-art", "relational", "generously", "&amp;", "東京", '"yes"', "1,000",
)  # fmt: skip
"""Case, stems, and what tokenizers disagree about."""

PLAIN = ("alpha", "bravo", "cider", "dog", "ember", "fig", "gamma", "hotel", "iris", "jolly", "kiwi", "lemon")
"""Lower-case words that no tokenizer splits and no stemmer makes equal."""


@dataclass(frozen=True)
class Written:
    """Arguments of `bleu` and of `rouge`: `references[i]` are the texts that `predictions[i]` should have been."""

    predictions: list[str]
    references: list[list[str]]

    @property
    def first(self) -> list[str]:
        """One reference an example."""
        return [texts[0] for texts in self.references]

    def with_(self, **changes: Any) -> Written:
        return replace(self, **changes)


def altered(choose: Choices, words: Sequence[str], *, among: Sequence[str]) -> list[str]:
    """Most words kept; some lost, doubled, replaced; sometimes two parts exchanged."""
    result: list[str] = []
    for word in words:
        result += ([word], [word], [word], [], [word, word], [choose.of(among)])[choose.below(6)]
    cut = choose.below(len(result) + 1) if choose.below(4) == 0 else 0
    return [*result[cut:], *result[:cut]]


def written_of(choose: Choices, *, texts: int | None = None, least: int = 0, most: int = 8) -> Written:
    count = choose.between(1, 3) if texts is None else texts
    predictions, references = [], []
    for _ in choose.several(1, 4):
        words = [choose.of(WORDS) for _ in choose.several(max(least, 1), most)]
        predicted = altered(choose, words, among=WORDS)
        others = [altered(choose, words, among=WORDS) for _ in range(count - 1)]
        blank = choose.of((" ", " ", "  "))
        empty = least == 0 and choose.below(8) == 0
        predictions.append("" if empty else blank.join(predicted))
        references.append([" ".join(text) for text in (words, *others)])
    return Written(predictions, references)


def written(*, texts: int | None = None, least: int = 0) -> SearchStrategy[Written]:
    """One to four examples of up to eight words, most of them partly right, some predictions empty.

    Args:
        texts: how many references each example has; one to three otherwise.
        least: every reference that comes first has at least so many words, and no prediction is empty on purpose.
    """
    return drawn(lambda choose: written_of(choose, texts=texts, least=least))


@dataclass(frozen=True)
class Summary:
    """A reference of sentences that share no word, and a prediction that holds some words of each, in order.

    So it is certain which words of the prediction ROUGE-Lsum finds: all that are the reference's.
    """

    prediction: list[str]
    reference: list[str]
    hits: int

    def text(self, sentences: list[str], *, newline: str = "\n") -> str:
        return newline.join(sentences)


def summary_of(choose: Choices) -> Summary:
    words = iter(choose.shuffled(PLAIN))
    reference, prediction, hits = [], [], 0
    for _ in choose.several(2, 4):
        own = [next(words) for _ in range(choose.between(1, 3))]
        kept = [word for word in own if choose.below(3)]
        hits += len(kept)
        reference.append(" ".join(own))
        prediction.append(" ".join([*kept, *["other"] * choose.below(2)]))
    return Summary(choose.shuffled(prediction), reference, hits)


def summaries() -> SearchStrategy[Summary]:
    """Two to four sentences of one to three words; the prediction's come in any order, and some are empty."""
    return drawn(summary_of)


INSIDE = ("word", "Another", "3.14", "J.", "U.S.", "1.000,5", "a.b", "(aside)", "e-mail", "wait,", '"quoted"', "?!x")
LAST = ("word", "end", "2024", "Berlin", "it")
CLOSED = (".", "!", "?", "…", "?!", "...", '."', ".)", "!\N{RIGHT DOUBLE QUOTATION MARK}", ".'", ".]")
BETWEEN = (" ", " ", "  ", "\t", "\n", "\n\n", " \n ", "\r\n")


@dataclass(frozen=True)
class Prose:
    """A text and the sentences that it was put together from."""

    text: str
    sentences: list[str]


def prose_of(choose: Choices) -> Prose:
    text, sentences = choose.of(("", " ", "\n")), []
    for _ in choose.several(0, 5):
        words = [*(choose.of(INSIDE) for _ in choose.several(0, 4)), choose.of(LAST)]
        open_end = choose.below(6) == 0  # a headline: only its line break ends it
        sentence = " ".join(words) + ("" if open_end else choose.of(CLOSED))
        sentences.append(sentence)
        text += sentence + ("\n" if open_end else choose.of(BETWEEN))
    return Prose(text, sentences)


def prose() -> SearchStrategy[Prose]:
    """Up to five sentences with numbers, initials and abbreviations in them, in one or several lines."""
    return drawn(prose_of)


SIGNS = "aBJ. .!?…\"')\n\t3\u00a0\N{RIGHT DOUBLE QUOTATION MARK}é"


def signs() -> SearchStrategy[str]:
    """Up to 24 characters, most of them those that decide where a sentence ends."""
    return drawn(lambda choose: "".join(choose.of(SIGNS) for _ in choose.several(0, 24)))
