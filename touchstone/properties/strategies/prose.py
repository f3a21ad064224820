"""Strategies for texts: predictions and references of `bleu` and `rouge`, prose for `split_sentences` and `lead`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

WORDS = (
    "the", "The", "cat", "cats", "sat", "sitting", "runs", "running", "on", "mat", "mat.", "mat,", "(on)", "3.14",
    "U.S.", "10-12", "don't", "café", "state-of-the-art", "relational", "generously", "&amp;", "東京", '"yes"', "1,000",
)  # fmt: skip
"""Words with different case and stems, and words that tokenizers split differently."""

VARIANTS = {
    "the": "The", "The": "the", "cat": "cats", "cats": "cat", "sat": "Sat", "sitting": "sit", "runs": "running",
    "running": "runs", "on": "On", "mat": "mat.", "mat.": "mat", "mat,": "mat ,", "(on)": "( on )",
    "relational": "relate", "generously": "generous", "café": "cafe", "don't": "dont",
}  # fmt: skip
"""Words that differ from the original only in case, stem, punctuation or accents."""

PLAIN = ("alpha", "bravo", "cider", "dog", "ember", "fig", "gamma", "hotel", "iris", "jolly", "kiwi", "lemon")
"""Lower-case words that tokenizers keep whole and that have different stems."""


@dataclass(frozen=True)
class ScoredTexts:
    """Arguments of `bleu` and of `rouge`: `references[i]` are the references of `predictions[i]`."""

    predictions: list[str]
    references: list[list[str]]

    @property
    def first(self) -> list[str]:
        """The first reference of each example."""
        return [texts[0] for texts in self.references]

    def with_(self, **changes: Any) -> ScoredTexts:
        return replace(self, **changes)


@st.composite
def altered(draw: DrawFn, words: Sequence[str]) -> list[str]:
    """Most words kept; some removed, doubled, replaced or varied; sometimes with two parts exchanged."""
    result: list[str] = []
    edits = st.sampled_from(("keep", "keep", "keep", "remove", "double", "replace", "vary"))
    for word, edit in zip(words, draw(st.lists(edits, min_size=len(words), max_size=len(words))), strict=True):
        if edit == "replace":
            word = draw(st.sampled_from(WORDS))
        if edit == "vary":
            word = VARIANTS.get(word, word)
        result += [word] * {"remove": 0, "double": 2}.get(edit, 1)
    cut = draw(st.integers(0, len(result))) if draw(st.integers(0, 3)) == 3 else 0
    return [*result[cut:], *result[:cut]]


@st.composite
def scored_texts(draw: DrawFn, *, texts: int | None = None, least: int = 0) -> ScoredTexts:
    """One to four examples of up to eight words. Most predictions are partly right, some are empty.

    Args:
        texts: the number of references of each example; `None` for one to three.
        least: the first reference of each example has at least `least` words. If positive, a prediction is only
            empty if all words were removed.
    """
    count = draw(st.integers(1, 3)) if texts is None else texts
    predictions, references = [], []
    words = st.lists(st.sampled_from(WORDS), min_size=max(least, 1), max_size=8)
    for reference in draw(st.lists(words, min_size=1, max_size=4)):
        predicted = draw(altered(reference))
        others = draw(st.lists(altered(reference), min_size=count - 1, max_size=count - 1))
        blank = draw(st.sampled_from((" ", " ", "  ")))
        empty = least == 0 and draw(st.integers(0, 7)) == 7
        predictions.append("" if empty else blank.join(predicted))
        references.append([" ".join(text) for text in (reference, *others)])
    return ScoredTexts(predictions, references)


@dataclass(frozen=True)
class Summary:
    """A reference whose sentences share no word, and a prediction with some words of each sentence, in order.

    ROUGE-Lsum must find all words of the prediction that are in the reference: `hits` of them.
    """

    prediction: list[str]
    reference: list[str]
    hits: int

    def text(self, sentences: list[str], *, newline: str = "\n") -> str:
        return newline.join(sentences)


@st.composite
def summaries(draw: DrawFn) -> Summary:
    """Two to four sentences of one to three words. The prediction has them in any order; some are empty."""
    words = iter(draw(st.permutations(PLAIN)))
    reference, prediction, hits = [], [], 0
    sentence = st.lists(st.sampled_from((True, True, False)), min_size=1, max_size=3)  # whether each word is predicted
    for flags in draw(st.lists(sentence, min_size=2, max_size=4)):
        own = [next(words) for _ in flags]
        kept = [word for word, flag in zip(own, flags, strict=True) if flag]
        hits += len(kept)
        reference.append(" ".join(own))
        prediction.append(" ".join([*kept, *["other"] * draw(st.integers(0, 1))]))
    return Summary(draw(st.permutations(prediction)), reference, hits)


INSIDE = ("word", "Another", "3.14", "J.", "U.S.", "1.000,5", "a.b", "(aside)", "e-mail", "wait,", '"quoted"', "?!x")
LAST = ("word", "end", "2024", "Berlin", "it")
CLOSED = (".", "!", "?", "…", "?!", "...", '."', ".)", "!\N{RIGHT DOUBLE QUOTATION MARK}", ".'", ".]")
BETWEEN = (" ", " ", "  ", "\t", "\n", "\n\n", " \n ", "\r\n")


@dataclass(frozen=True)
class Prose:
    """A text and its sentences."""

    text: str
    sentences: list[str]


@st.composite
def prose(draw: DrawFn) -> Prose:
    """Up to five sentences with numbers, initials and abbreviations in them, on one or several lines."""
    text, sentences = draw(st.sampled_from(("", " ", "\n"))), []
    words = st.tuples(st.lists(st.sampled_from(INSIDE), max_size=4), st.sampled_from(LAST))
    for inside, last in draw(st.lists(words, max_size=5)):
        open_end = draw(st.integers(0, 5)) == 5  # a headline: only its line break ends it
        sentence = " ".join([*inside, last]) + ("" if open_end else draw(st.sampled_from(CLOSED)))
        sentences.append(sentence)
        text += sentence + ("\n" if open_end else draw(st.sampled_from(BETWEEN)))
    return Prose(text, sentences)


SIGNS = "aBJ. .!?…\"')\n\t3\u00a0\N{RIGHT DOUBLE QUOTATION MARK}é"


def signs() -> SearchStrategy[str]:
    """Up to 24 characters. Most of them decide where a sentence ends."""
    return st.text(st.sampled_from(SIGNS), max_size=24)
