"""Bugs of ROUGE, of splitting sentences, and of the lead."""

from __future__ import annotations

import re
from functools import cache
from statistics import median
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from tests.independent.rouge import lead, rouge, split_sentences
from tests.planted.bug import planted

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


@cache
def scorer_of(stemmer: bool) -> RougeScorer:
    return RougeScorer(list(KINDS), use_stemmer=stemmer)


def by(part: str, predictions: Any, references: Any, *, stemmer: bool = True) -> list[dict[str, float]]:
    """Precision, recall or F-measure of each text, from 0 to 1."""
    scores = [scorer_of(stemmer).score(b, a) for a, b in zip(predictions, references, strict=True)]
    return [{kind: getattr(score[kind], part) for kind in KINDS} for score in scores]


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {kind: 100 * sum(row[kind] for row in rows) / len(rows) for kind in KINDS}


# The number --------------------------------------------------------------------------------------------------------


@planted("rouge", caught_by="R2 R3 R7")
def recall_for_f_measure(predictions, *, references, newline="\n"):
    """Recall: the longest summary wins."""
    right = rouge(predictions, references=references, newline=newline)
    return {**right, **means(by("recall", predictions, references))}


@planted("rouge", caught_by="R2 R3 R7")
def precision_for_f_measure(predictions, *, references, newline="\n"):
    """Precision: one safe word wins."""
    right = rouge(predictions, references=references, newline=newline)
    return {**right, **means(by("precision", predictions, references))}


@planted("rouge", caught_by="R1 R2")
def a_fraction_for_percent(predictions, *, references, newline="\n"):
    """From 0 to 1, as evaluate's rouge has it."""
    right = rouge(predictions, references=references, newline=newline)
    return {**right, **{kind: right[kind] / 100 for kind in KINDS}}


@planted("rouge", caught_by="R1 R2 R3", evidence="course/5.mdx:534")
def mid_of_a_number(predictions, *, references, newline="\n"):
    """`value.mid.fmeasure`, as the course has it: the scores have been plain numbers for years."""
    right = rouge(predictions, references=references, newline=newline)
    return {**right, **{kind: right[kind].mid.fmeasure for kind in KINDS}}


@planted("rouge", caught_by="R2")
def rounded_to_whole_percents(predictions, *, references, newline="\n"):
    """Scores are rounded where they are made: small improvements vanish."""
    right = rouge(predictions, references=references, newline=newline)
    return {**right, **{kind: float(round(right[kind])) for kind in KINDS}}


@planted("rouge", caught_by="R1 R2 R3", evidence="espnet/espnet#5688")
def to_the_power_of_100(predictions, *, references, newline="\n"):
    """`score ** 100` for `score * 100`."""
    right = rouge(predictions, references=references, newline=newline)
    return {**right, **{kind: (right[kind] / 100) ** 100 for kind in KINDS}}


@planted("rouge", caught_by="R6")
def the_median_of_texts(predictions, *, references, newline="\n"):
    """The median over texts for the mean, as a bootstrap's middle is often read."""
    right = rouge(predictions, references=references, newline=newline)
    rows = by("fmeasure", predictions, references)
    if newline != "\n":
        return right
    return {**right, **{kind: 100 * median(row[kind] for row in rows) for kind in KINDS}}


@planted("rouge", caught_by="R6")
def all_texts_as_one(predictions, *, references, newline="\n"):
    """All texts are joined and scored as one: words match across examples."""
    return {
        **rouge([newline.join(predictions)], references=[newline.join(references)], newline=newline),
        "number": rouge(predictions, references=references, newline=newline)["number"],
    }


@planted("rouge", caught_by="R11")
def bootstrapped(predictions, *, references, newline="\n"):
    """The mean of a resample drawn from the global generator, as rouge-score's BootstrapAggregator draws it."""
    right = rouge(predictions, references=references, newline=newline)
    np.random.choice(len(predictions), size=len(predictions))
    return right


# Words -------------------------------------------------------------------------------------------------------------


@planted("rouge", caught_by="R2 R3", evidence="huggingface/datasets#617")
def not_stemmed(predictions, *, references, newline="\n"):
    """rouge-score's default is no stemmer: `cats` and `cat` are different words, and the signature says porter."""
    right = rouge(predictions, references=references, newline=newline)
    return {**right, **means(by("fmeasure", predictions, references, stemmer=False))}


@planted("rouge", caught_by="R2")
def sets_of_ngrams(predictions, *, references, newline="\n"):
    """How often an n-gram occurs does not count: a text that repeats itself loses nothing."""
    right = rouge(predictions, references=references, newline=newline)
    once = [[" ".join(dict.fromkeys(re.findall(r"[a-z0-9]+", text.lower()))) for text in texts]
            for texts in (predictions, references)]  # fmt: skip
    return {**right, "rouge1": rouge(once[0], references=once[1])["rouge1"]}


@planted("rouge", caught_by="R2")
def bigrams_of_kept_letters(predictions, *, references, newline="\n"):
    """ROUGE-2 over pairs that need not be neighbours of one text: those of ROUGE-1 squared."""
    right = rouge(predictions, references=references, newline=newline)
    return {**right, "rouge2": right["rouge1"] ** 2 / 100}


# Sentences of ROUGE ------------------------------------------------------------------------------------------------


@planted("rouge", caught_by="R4", evidence="huggingface/evaluate#501 Lightning-AI/torchmetrics#904")
def line_breaks_lost(predictions, *, references, newline="\n"):
    """Texts are handed over without line breaks between their sentences: ROUGE-Lsum is ROUGE-L."""
    joined = [[text.replace(newline, " ") for text in texts] for texts in (predictions, references)]
    return {**rouge(predictions, references=references, newline=newline), **scores_of(*joined)}


def scores_of(predictions: Any, references: Any) -> dict[str, float]:
    if len(predictions) != len(references) or not predictions:
        return {}
    return {kind: value for kind, value in rouge(predictions, references=references).items() if kind in KINDS}


@planted("rouge", caught_by="R3", evidence="google-research/google-research#168 huggingface/transformers#6808")
def the_other_rouge_l(predictions, *, references, newline="\n"):
    """ROUGE-Lsum under the name of ROUGE-L, as papers that used the Perl script mean it."""
    right = rouge(predictions, references=references, newline=newline)
    return {**right, "rougeL": right["rougeLsum"]}


@planted("rouge", caught_by="R4")
def sentences_compared_in_order(predictions, *, references, newline="\n"):
    """The first sentence is compared with the first, the second with the second."""
    right = rouge(predictions, references=references, newline=newline)
    rows = []
    for prediction, reference in zip(predictions, references, strict=True):
        ours, theirs = prediction.split(newline), reference.split(newline)
        size = max(len(ours), len(theirs))
        pairs = [[*texts, *[""] * (size - len(texts))] for texts in (ours, theirs)]
        rows.append(rouge(pairs[0], references=pairs[1])["rougeL"])
    return {**right, "rougeLsum": sum(rows) / len(rows)}


@planted("rouge", caught_by="R5")
def newline_not_looked_at(predictions, *, references, newline="\n"):
    """`newline` is accepted and not used."""
    right = rouge(predictions, references=references)
    return {**right, "signature": f"{right['signature']}|{newline}"}


@planted("rouge", caught_by="R5")
def newline_is_a_word(predictions, *, references, newline="\n"):
    """`<n>` stays in the text of ROUGE-1: every sentence has a word `n` for free."""
    right = rouge(predictions, references=references, newline=newline)
    raw = rouge(predictions, references=references)
    return {**right, "rouge1": raw["rouge1"], "rouge2": raw["rouge2"]}


# Manners of ROUGE --------------------------------------------------------------------------------------------------


@planted("rouge", caught_by="R9")
def texts_without_words_left_out(predictions, *, references, newline="\n"):
    """Examples for which the prediction is empty are skipped: the mean is over the others."""
    right = rouge(predictions, references=references, newline=newline)
    pairs = [(a, b) for a, b in zip(predictions, references, strict=True) if re.search("[a-z0-9]", a.lower())]
    if not pairs:
        return right
    kept = rouge([a for a, _ in pairs], references=[b for _, b in pairs], newline=newline)
    return {**kept, "number": right["number"]}


@planted("rouge", caught_by="R9")
def empty_text_is_an_error(predictions, *, references, newline="\n"):
    """A text without words raises a ValueError, as the `rouge` package does."""
    if len(predictions) == len(references) and not all(re.search("[a-z0-9]", text.lower()) for text in predictions):
        raise ValueError("Hypothesis is empty.")
    return rouge(predictions, references=references, newline=newline)


@planted("rouge", caught_by="R9")
def two_texts_without_words_are_alike(predictions, *, references, newline="\n"):
    """Nothing for nothing scores 100."""
    right = rouge(predictions, references=references, newline=newline)
    empty = sum(not re.search("[a-z0-9]", (a + b).lower()) for a, b in zip(predictions, references, strict=True))
    return {**right, **{kind: right[kind] + 100 * empty / len(predictions) for kind in KINDS}}


@planted("rouge", caught_by="R8")
def rouge_without_signature(predictions, *, references, newline="\n"):
    """The signature lacks stemming and sentences."""
    return {**rouge(predictions, references=references, newline=newline), "signature": "rouge"}


@planted("rouge", caught_by="R8")
def signature_without_sentences(predictions, *, references, newline="\n"):
    """The signature does not say what separates sentences."""
    right = rouge(predictions, references=references, newline=newline)
    return {**right, "signature": "rouge-score|stemmer:porter|sentences:yes|version:0.1.2"}


@planted("rouge", caught_by="R10")
def texts_cut_to_the_shorter(predictions, *, references, newline="\n"):
    """Predictions and references of different numbers are silently cut."""
    size = min(len(predictions), len(references))
    return rouge(predictions[:size], references=references[:size], newline=newline)


@planted("rouge", caught_by="R10")
def rouge_of_nothing(predictions, *, references, newline="\n"):
    """The score of no texts is 0: an empty split looks like a bad model."""
    if not len(predictions) and not len(references):
        return {**dict.fromkeys(KINDS, 0.0), "number": 0, "signature": ""}
    return rouge(predictions, references=references, newline=newline)


@planted("rouge", caught_by="R11")
def texts_lowered_in_place(predictions, *, references, newline="\n"):
    """The caller's list of predictions is stripped and lower-cased."""
    right = rouge(predictions, references=references, newline=newline)
    if isinstance(predictions, list):
        predictions[:] = [text.lower().strip() for text in predictions]
    return right


# Splitting ---------------------------------------------------------------------------------------------------------


@planted("split_sentences", caught_by="R12 R13")
def marks_lost(text):
    """`re.split` at the marks: they are in no sentence."""
    return [part.strip() for part in re.split(r"[.!?…]+(?=\s|$)|\n", text) if part.strip()]


@planted("split_sentences", caught_by="R13")
def every_period_ends_a_sentence(text):
    """A period ends a sentence also within a number or an address."""
    parts = re.findall(r"[^.!?…\n]*(?:[.!?…]+[\"')\]}»\u2019\u201d]*|\n|$)", text)
    return [line.strip() for part in parts for line in part.splitlines() if line.strip()]


@planted("split_sentences", caught_by="R13")
def initials_end_sentences(text):
    """`J. Smith` is two sentences."""
    found = [re.split(r"(?<=[A-Z]\.)\s+", sentence) for sentence in split_sentences(text)]
    return [part for parts in found for part in parts if part]


@planted("split_sentences", caught_by="R13")
def quotes_hide_the_end(text):
    """A period before a closing quote or bracket does not end the sentence."""
    result: list[str] = []
    for line in text.splitlines():
        own: list[str] = []
        for sentence in split_sentences(line):
            if own and own[-1][-1] in "\"')]}»\u2019\u201d":
                own[-1] += f" {sentence}"
            else:
                own.append(sentence)
        result += own
    return result


@planted("split_sentences", caught_by="R13")
def line_breaks_are_blanks(text):
    """A headline and the sentence after it are one."""
    return split_sentences(" ".join(text.splitlines()))


@planted("split_sentences", caught_by="R13")
def dots_end_sentences_one_by_one(text):
    """Of `...` each dot is a sentence."""
    found = [re.sub(r"([.!?…])(?=[.!?…])", r"\1\n", sentence).splitlines() for sentence in split_sentences(text)]
    return [part for parts in found for part in parts if part.strip()]


@planted("split_sentences", caught_by="R12")
def blanks_kept(text):
    """Sentences keep the blanks behind them."""
    return [f"{sentence} " if sentence != text else sentence for sentence in split_sentences(text)]


@planted("split_sentences", caught_by="R12")
def empty_sentences_kept(text):
    """An empty line is an empty sentence."""
    return [*split_sentences(text), *([""] if "\n" in text else [])]


@planted("split_sentences", caught_by="R12")
def last_sentence_needs_a_mark(text):
    """The text after the last mark is dropped."""
    found = split_sentences(text)
    return found[:-1] if found and not re.search(r"[.!?…][\"')\]}»\u2019\u201d]*$", found[-1]) else found


@cache
def remembered(text: str) -> list[str]:
    return split_sentences(text)


@planted("split_sentences", caught_by="R15")
def same_list_for_the_same_text(text):
    """A cache hands the same list out twice: who changes one changes both."""
    return remembered(text)


# The lead ----------------------------------------------------------------------------------------------------------


@planted("lead", caught_by="R14")
def lead_on_one_line(text, *, sentences=3):
    """The sentences are joined by blanks: ROUGE-Lsum sees one sentence."""
    return " ".join(lead(text, sentences=sentences).splitlines())


@planted("lead", caught_by="R14")
def last_sentences_lead(text, *, sentences=3):
    """The last sentences, not the first."""
    lead(text, sentences=sentences)
    return "\n".join(split_sentences(text)[-sentences:])


@planted("lead", caught_by="R14")
def always_three_sentences(text, *, sentences=3):
    """`sentences` is ignored."""
    lead(text, sentences=sentences)
    return lead(text)


@planted("lead", caught_by="R14")
def short_texts_have_no_lead(text, *, sentences=3):
    """A text of fewer sentences gives nothing."""
    whole = lead(text, sentences=sentences)
    return whole if len(split_sentences(text)) >= sentences else ""


@planted("lead", caught_by="R15")
def a_lead_of_nothing(text, *, sentences=3):
    """`[:0]` is empty and `[:-1]` is nearly all: no error."""
    return "\n".join(split_sentences(text)[:sentences])
