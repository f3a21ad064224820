"""Bugs of SQuAD's exact match and F1."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Any

from tests.independent.squad import squad_scores, words
from tests.planted.bug import planted

Words = Callable[[str], list[str]]


def scored(
    predictions: Any, references: Any, *, f1: Callable[[list[str], list[str]], float], words: Words = words
) -> Any:
    """Return the scores with another F1 or another normalisation."""
    right = squad_scores(predictions, references=references)
    exact, total = 0.0, 0.0
    for prediction, row in zip(predictions, references, strict=True):
        pairs = [(words(prediction), words(reference)) for reference in row or [""]]
        exact += max(ours == theirs for ours, theirs in pairs)
        total += max(f1(ours, theirs) for ours, theirs in pairs)
    n = len(predictions)
    return {**right, "exact_match": 100 * exact / n, "f1": 100 * total / n}


def bag_f1(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    same = sum(min(ours.count(word), theirs.count(word)) for word in set(ours))
    return 2 * same / (len(ours) + len(theirs))


# Normalisation -----------------------------------------------------------------------------------------------------


@planted("squad_scores", caught_by="Q2 Q3")
def articles_not_removed(predictions, *, references):
    """Articles count as words."""
    table = str.maketrans("", "", string.punctuation)
    return scored(predictions, references, f1=bag_f1, words=lambda text: text.lower().translate(table).split())


@planted("squad_scores", caught_by="Q2 Q3")
def articles_removed_within_words(predictions, *, references):
    """`replace("the", " ")`: also the letters of other words vanish, of theatre as of banana."""

    def inner(text: str) -> list[str]:
        return re.sub("the|an|a", " ", " ".join(words(text))).split()

    return scored(predictions, references, f1=bag_f1, words=inner)


@planted("squad_scores", caught_by="Q3")
def articles_removed_before_punctuation(predictions, *, references):
    """`remove_punc(remove_articles(text))`: a in a.m. or an in an-other is an article then."""

    def other(text: str) -> list[str]:
        bare = re.sub(r"\b(a|an|the)\b", " ", text.lower())
        return "".join(letter for letter in bare if letter not in string.punctuation).split()

    return scored(predictions, references, f1=bag_f1, words=other)


@planted("squad_scores", caught_by="Q3")
def all_punctuation_removed(predictions, *, references):
    """Dashes and quotation marks that are not ASCII go too, and so do combining marks."""

    def other(text: str) -> list[str]:
        bare = "".join(letter for letter in text.lower() if letter.isalnum() or letter.isspace())
        return [word for word in bare.split() if word not in ("a", "an", "the")]

    return scored(predictions, references, f1=bag_f1, words=other)


@planted("squad_scores", caught_by="Q2 Q3")
def punctuation_becomes_a_blank(predictions, *, references):
    """Punctuation separates words: U.S. is two of them."""
    table = str.maketrans(dict.fromkeys(string.punctuation, " "))
    return scored(predictions, references, f1=bag_f1, words=lambda text: words(text.translate(table)))


@planted("squad_scores", caught_by="Q2")
def case_matters(predictions, *, references):
    """Texts are not lowered."""
    marked = [re.sub(r"([A-Z])", r"\1q", text) for text in predictions]
    return squad_scores(marked, references=[[re.sub(r"([A-Z])", r"\1q", text) for text in row] for row in references])


@planted("squad_scores", caught_by="Q2")
def predictions_not_normalised(predictions, *, references):
    """Only the references are normalised, not the predictions."""
    right = squad_scores(predictions, references=references)
    exact = sum(
        text in [" ".join(words(t)) for t in row or [""]] for text, row in zip(predictions, references, strict=True)
    )
    return {**right, "exact_match": 100 * exact / len(predictions)}


# F1 ----------------------------------------------------------------------------------------------------------------


@planted("squad_scores", caught_by="Q3")
def f1_of_sets(predictions, *, references):
    """F1 is over the sets of words: how often one occurs does not count."""

    def of_sets(ours: list[str], theirs: list[str]) -> float:
        return bag_f1(sorted(set(ours)), sorted(set(theirs)))

    return scored(predictions, references, f1=of_sets)


@planted("squad_scores", caught_by="Q2 Q3")
def recall_for_f1(predictions, *, references):
    """The share of the reference's words that were found, not F1."""

    def recall(ours: list[str], theirs: list[str]) -> float:
        if not ours or not theirs:
            return float(ours == theirs)
        return sum(min(ours.count(word), theirs.count(word)) for word in set(theirs)) / len(theirs)

    return scored(predictions, references, f1=recall)


@planted("squad_scores", caught_by="Q5")
def two_empty_texts_score_nothing(predictions, *, references):
    """F1 of two texts without words is 0, as in the script of v1.1."""

    def strict(ours: list[str], theirs: list[str]) -> float:
        return bag_f1(ours, theirs) if ours else 0.0

    return scored(predictions, references, f1=strict)


# Over references and examples --------------------------------------------------------------------------------------


@planted("squad_scores", caught_by="Q1 Q4")
def first_reference_only(predictions, *, references):
    """Only the first reference counts."""
    return squad_scores(predictions, references=[row if isinstance(row, str) else row[:1] for row in references])


@planted("squad_scores", caught_by="Q4")
def mean_over_references(predictions, *, references):
    """F1 is the mean over an example's references, not the best."""
    right = squad_scores(predictions, references=references)
    means = [
        sum(bag_f1(words(text), words(other)) for other in row or [""]) / max(len(row), 1)
        for text, row in zip(predictions, references, strict=True)
    ]
    return {**right, "f1": 100 * sum(means) / len(means)}


@planted("squad_scores", caught_by="Q4")
def f1_of_the_exactly_best_reference(predictions, *, references):
    """F1 is computed for the first reference with the best exact match, not for the reference with the best F1."""
    right = squad_scores(predictions, references=references)
    total = 0.0
    for text, row in zip(predictions, references, strict=True):
        pairs = [(words(text), words(other)) for other in row or [""]]
        total += bag_f1(*max(pairs, key=lambda pair: pair[0] == pair[1]))
    return {**right, "f1": 100 * total / len(predictions)}


@planted("squad_scores", caught_by="Q5")
def unanswerable_examples_left_out(predictions, *, references):
    """Examples without a reference are skipped, the mean is over the others."""
    right = squad_scores(predictions, references=references)
    kept = [(text, row) for text, row in zip(predictions, references, strict=True) if len(row)]
    if not kept:
        return {**right, "exact_match": 0.0, "f1": 0.0}
    return squad_scores([text for text, _ in kept], references=[row for _, row in kept])


@planted("squad_scores", caught_by="Q5")
def anything_answers_the_unanswerable(predictions, *, references):
    """With no reference to differ from, every prediction is right."""
    usual = [row if len(row) else [text] for text, row in zip(predictions, references, strict=True)]
    right = squad_scores(predictions, references=references)
    return squad_scores(predictions, references=usual) if right else right


@planted("squad_scores", caught_by="Q6")
def running_mean(predictions, *, references):
    """The running mean of the score so far and the next example's: the last example has weight one half."""
    right = squad_scores(predictions, references=references)
    f1 = None
    for text, row in zip(predictions, references, strict=True):
        one = squad_scores([text], references=[row])["f1"]
        f1 = one if f1 is None else (f1 + one) / 2
    return {**right, "f1": f1}


@planted("squad_scores", caught_by="Q7")
def references_counted(predictions, *, references):
    """The number counts references, not examples."""
    right = squad_scores(predictions, references=references)
    return {**right, "number": sum(max(len(row), 1) for row in references)}


@planted("squad_scores", caught_by="Q8")
def a_text_is_a_list_of_letters(predictions, *, references):
    """References that are a text are read letter by letter."""
    return squad_scores(predictions, references=[list(row) for row in references])


@planted("squad_scores", caught_by="Q8")
def cut_to_the_shorter(predictions, *, references):
    """Predictions and references of different numbers are cut to the shorter."""
    n = min(len(predictions), len(references))
    return squad_scores(predictions[:n], references=references[:n])


@planted("squad_scores", caught_by="Q9")
def references_filled_in_place(predictions, *, references):
    """An empty text is put into the caller's empty lists."""
    for row in references:
        if isinstance(row, list) and not row:
            row.append("")
    return squad_scores(predictions, references=references)
