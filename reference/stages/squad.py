"""Compute SQuAD's exact match and F1.

Source: Rajpurkar et al. 2016, "SQuAD", section 6.1, and the official script evaluate-v1.1.py; examples without an
answer as evaluate-v2.0.py counts them (Rajpurkar et al. 2018, "Know What You Don't Know").
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
SIGNATURE = "squad|normalized:lower,punctuation,articles,blanks|best:references|no_answer:v2.0|unit:percent|version:1.1"


class SquadScores(TypedDict):
    """The result of `squad_scores`: percentages, and the `number` of examples."""

    exact_match: float
    f1: float
    number: int
    signature: str


def squad_scores(predictions: Sequence[str], *, references: Sequence[Sequence[str]]) -> SquadScores:
    """Compute exact match and F1: the best over each example's references, averaged over the examples.

    >>> scores = squad_scores(["the Eiffel Tower", "1889"], references=[["Eiffel tower"], ["in 1889", "in May 1889"]])
    >>> scores["exact_match"], round(scores["f1"], 2)
    (50.0, 83.33)

    Args:
        predictions: N texts.
        references: N lists of acceptable texts. An empty list means that the question has no answer.

    Returns:
        `exact_match` and `f1` in percent, `number` (N), `signature`.

    Raises:
        ValueError: no examples, different lengths, references that are a text and not a list of texts.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} lists of references")
    if not len(predictions):
        raise ValueError("no examples: a mean needs at least one")
    exact, f1 = [], []
    for number, (prediction, acceptable) in enumerate(zip(predictions, references, strict=True)):
        if isinstance(acceptable, str):
            raise ValueError(f"references[{number}] is the text {acceptable!r}: a list of texts is needed")
        texts = list(acceptable) or [""]
        exact.append(max(normalize_answer(prediction) == normalize_answer(text) for text in texts))
        f1.append(max(answer_f1(prediction, text) for text in texts))
    n = len(predictions)
    # fsum is exact, so the order of examples does not change even the last bit.
    return {"exact_match": 100 * sum(exact) / n, "f1": 100 * math.fsum(f1) / n, "number": n, "signature": SIGNATURE}


def normalize_answer(text: str) -> str:
    """Return the text in lower case, without ASCII punctuation and the articles a, an, the, with single blanks."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split())


def answer_f1(prediction: str, reference: str) -> float:
    """Return the F1 of two bags of words: 1 if both texts have no words, 0 if only one of them has none."""
    ours, theirs = normalize_answer(prediction).split(), normalize_answer(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (Counter(ours) & Counter(theirs)).total() / (len(ours) + len(theirs))
