"""Bugs of BLEU: references, tokenization and the meaning of the score."""

from __future__ import annotations

import re
from typing import Any

from sacrebleu.metrics.bleu import BLEU

from tests.independent.bleu import bleu
from tests.planted.bug import planted


def as_lists(references: Any) -> list[list[str]]:
    return [[texts] if isinstance(texts, str) else list(texts) for texts in references]


def by(metric: BLEU, predictions: Any, references: Any) -> dict[str, Any]:
    """What another BLEU says, with the right signature."""
    right = bleu(predictions, references=references)
    columns = [list(column) for column in zip(*as_lists(references), strict=True)]
    score = metric.corpus_score(list(predictions), columns)
    own = {"bleu": score.score, "precisions": list(score.precisions), "brevity_penalty": score.bp}
    return {**right, **own}


def in_each(change: Any, references: Any) -> list[list[str]]:
    return [[change(text) for text in texts] for texts in as_lists(references)]


# Texts -------------------------------------------------------------------------------------------------------------


@planted("bleu", caught_by="B2 B6", evidence="huggingface/datasets#137 huggingface/evaluate#105")
def texts_are_split_at_blanks(predictions, *, references):
    """Texts are treated as already tokenized: a word with a punctuation mark is another word."""
    return by(BLEU(tokenize="none", force=True), predictions, references)


@planted("bleu", caught_by="B2 B6", evidence="huggingface/datasets#137")
def pieces_joined_by_blanks(predictions, *, references):
    """Both sides are the tokenizer's pieces joined by blanks: pieces count for words."""

    def pieces(text: str) -> str:
        return re.sub(r"(\w\w)(?=\w)", r"\1 ", text)

    return bleu([pieces(text) for text in predictions], references=in_each(pieces, references))


@planted("bleu", caught_by="B2 B6")
def case_ignored(predictions, *, references):
    """Everything is lower-cased, and the signature still says mixed."""
    return by(BLEU(lowercase=True, force=True), predictions, references)


@planted("bleu", caught_by="B2")
def another_tokenizer(predictions, *, references):
    """The international tokenizer instead of 13a."""
    return by(BLEU(tokenize="intl", force=True), predictions, references)


@planted("bleu", caught_by="B2")
def letters_for_words(predictions, *, references):
    """n-grams of characters."""
    return by(BLEU(tokenize="char", force=True), predictions, references)


# References --------------------------------------------------------------------------------------------------------


@planted(
    "bleu",
    caught_by="B3",
    evidence="mjpost/sacrebleu#220 mjpost/sacrebleu#272 huggingface/lighteval#1112",
)
def references_not_transposed(predictions, *, references):
    """sacreBLEU gets a list for each example, and treats it as a list of all examples: most are left out."""
    right = bleu(predictions, references=references)
    score = BLEU(force=True).corpus_score(list(predictions), as_lists(references))
    own = {"bleu": score.score, "precisions": list(score.precisions), "brevity_penalty": score.bp}
    return {**right, **own}


@planted("bleu", caught_by="B3")
def other_references_dropped(predictions, *, references):
    """Only the first reference of each example counts."""
    right = bleu(predictions, references=references)
    first = bleu(predictions, references=[texts[0] for texts in as_lists(references)])
    return {**first, "signature": right["signature"]}


@planted("bleu", caught_by="B3")
def best_of_the_references(predictions, *, references):
    """BLEU against each set of references separately, and the best of them."""
    right = bleu(predictions, references=references)
    columns = zip(*as_lists(references), strict=True)
    best = max((bleu(predictions, references=list(column)) for column in columns), key=lambda each: each["bleu"])
    return {**best, "signature": right["signature"]}


@planted("bleu", caught_by="B2 B3")
def a_text_is_a_list_of_its_letters(predictions, *, references):
    """A reference that is a text is iterated over: its letters are the references."""
    bleu(predictions, references=references)
    width = max(len(texts) for texts in references)
    filled = [[*texts, *[""] * (width - len(texts))] if isinstance(texts, str) else texts for texts in references]
    return bleu(predictions, references=filled) if width else bleu(predictions, references=references)


@planted("bleu", caught_by="B8")
def missing_references_filled_up(predictions, *, references):
    """Examples with fewer references get empty ones, which nothing can match and which make the penalty milder."""
    width = max((len(texts) for texts in as_lists(references)), default=0)
    filled = [[*texts, *[""] * (width - len(texts))] for texts in as_lists(references)]
    return bleu(predictions, references=filled)


# Counting ----------------------------------------------------------------------------------------------------------


@planted("bleu", caught_by="B2")
def mean_of_sentence_scores(predictions, *, references):
    """The mean of each example's BLEU, not the BLEU of the corpus."""
    right = bleu(predictions, references=references)
    metric = BLEU(effective_order=True, force=True)
    scores = [metric.sentence_score(a, b).score for a, b in zip(predictions, as_lists(references), strict=True)]
    return {**right, "bleu": sum(scores) / len(scores)}


@planted("bleu", caught_by="B2")
def unsmoothed(predictions, *, references):
    """Without smoothing: a corpus without a common 4-gram scores 0."""
    return by(BLEU(smooth_method="none", force=True), predictions, references)


@planted("bleu", caught_by="B2")
def order_of_the_longest_text(predictions, *, references):
    """If there is no 4-gram, the mean is taken over the existing orders."""
    return by(BLEU(effective_order=True, force=True), predictions, references)


@planted("bleu", caught_by="B2 B7")
def never_penalised(predictions, *, references):
    """There is no brevity penalty: one safe word per example scores high."""
    right = bleu(predictions, references=references)
    penalty = right["brevity_penalty"]
    return {**right, "bleu": right["bleu"] / penalty if penalty else 0.0, "brevity_penalty": 1.0}


@planted("bleu", caught_by="B3")
def shortest_reference_decides_length(predictions, *, references):
    """The brevity penalty is by the shortest reference, not by the closest."""
    right = bleu(predictions, references=references)
    shortest = [min(texts, key=lambda text: len(text.split())) for texts in as_lists(references)]
    penalty = bleu(predictions, references=shortest)["brevity_penalty"]
    own = right["bleu"] / right["brevity_penalty"] * penalty if right["brevity_penalty"] else 0.0
    return {**right, "bleu": own, "brevity_penalty": penalty}


@planted("bleu", caught_by="B1 B2")
def a_fraction(predictions, *, references):
    """From 0 to 1, as evaluate's `bleu` has it, not from 0 to 100."""
    right = bleu(predictions, references=references)
    return {**right, "bleu": right["bleu"] / 100}


@planted("bleu", caught_by="B1", evidence="mjpost/sacrebleu#275")
def more_than_100(predictions, *, references):
    """A geometric mean of four hundreds is returned with its rounding error: 100.00000000000004."""
    right = bleu(predictions, references=references)
    return {**right, "bleu": 100.00000000000004 if right["bleu"] > 99.9999999 else right["bleu"]}


@planted("bleu", caught_by="B2")
def precisions_as_fractions(predictions, *, references):
    """The score is in percent and its precisions are not."""
    right = bleu(predictions, references=references)
    return {**right, "precisions": [precision / 100 for precision in right["precisions"]]}


@planted("bleu", caught_by="B2 B7")
def empty_predictions_left_out(predictions, *, references):
    """Examples for which the prediction is empty are skipped: missing output is not penalised."""
    right = bleu(predictions, references=references)
    pairs = [(a, b) for a, b in zip(predictions, as_lists(references), strict=True) if a]
    if not pairs:
        return right
    kept = bleu([a for a, _ in pairs], references=[b for _, b in pairs])
    return {**kept, "number": right["number"]}


@planted("bleu", caught_by="B7")
def nothing_written_is_a_division_by_zero(predictions, *, references):
    """A corpus of empty predictions raises ZeroDivisionError, in the middle of the first evaluation."""
    right = bleu(predictions, references=references)
    if not any(text.strip() for text in predictions):
        raise ZeroDivisionError("division by zero")
    return right


@planted("bleu", caught_by="B4")
def running_score(predictions, *, references):
    """The running mean of the score so far and the next example's: the last example has weight one half."""
    right = bleu(predictions, references=references)
    score = 0.0
    for prediction, texts in zip(predictions, as_lists(references), strict=True):
        score = (score + bleu([prediction], references=[texts])["bleu"]) / 2
    return {**right, "bleu": score}


# Manners -----------------------------------------------------------------------------------------------------------


@planted("bleu", caught_by="B5", evidence="huggingface/evaluate#558")
def no_signature(predictions, *, references):
    """The signature lacks the tokenizer and the version: the score cannot be compared."""
    return {**bleu(predictions, references=references), "signature": "BLEU"}


@planted("bleu", caught_by="B5")
def signature_of_one_reference(predictions, *, references):
    """The signature says `nrefs:1` for any input."""
    right = bleu(predictions, references=references)
    return {**right, "signature": re.sub(r"nrefs:\d+", "nrefs:1", right["signature"])}


@planted("bleu", caught_by="B8")
def cut_to_the_shorter_of_both(predictions, *, references):
    """Predictions and references of different numbers are silently cut."""
    size = min(len(predictions), len(references))
    return bleu(predictions[:size], references=references[:size])


@planted("bleu", caught_by="B9")
def references_sorted_in_place(predictions, *, references):
    """The caller's lists of references are sorted."""
    for texts in references:
        if isinstance(texts, list):
            texts.sort(reverse=True)
            texts.append(texts.pop(0))
    return bleu(predictions, references=references)
