"""evaluate's metric `squad` (version 0.4.6): the official script of SQuAD v1.1.

Written anew with the same behaviour, because evaluate loads it from a network. Section 7.7 of the course and run_qa.py
use it. The script knows no questions without an answer.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

choices = {"no_answer": "v1.1"}


def normalize_answer(text: str) -> str:
    kept = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def f1_score(prediction: str, answer: str) -> float:
    guess, gold = normalize_answer(prediction).split(), normalize_answer(answer).split()
    same = sum((Counter(guess) & Counter(gold)).values())
    if same == 0:
        return 0
    precision, recall = same / len(guess), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def exact_match_score(prediction: str, answer: str) -> float:
    return float(normalize_answer(prediction) == normalize_answer(answer))


def squad_scores(predictions: Sequence[str], *, references: Sequence[Sequence[str]]) -> dict[str, float]:
    def mean(score: Callable[[str, str], float]) -> float:
        pairs = zip(predictions, references, strict=False)
        return 100 * sum(max(score(guess, answer) for answer in answers) for guess, answers in pairs) / len(references)

    return {"exact_match": mean(exact_match_score), "f1": mean(f1_score)}
