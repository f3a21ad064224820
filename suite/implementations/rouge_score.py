"""rouge-score 0.1.2 (PyPI, `rouge-score`): `RougeScorer` with stemming, and the mean of its F-measures in percent.

rouge-score separates sentences at line breaks and nowhere else, so that is the only `newline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from rouge_score.rouge_scorer import RougeScorer

supports = {"newline": ["\n"]}
KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def rouge(predictions: Sequence[str], *, references: Sequence[str]) -> dict[str, Any]:
    scorer = RougeScorer(KINDS, use_stemmer=True)
    found = [scorer.score(target, guess) for guess, target in zip(predictions, references, strict=False)]
    means = {kind: 100 * sum(each[kind].fmeasure for each in found) / len(found) for kind in KINDS}
    signature = f"rouge-score|measure:f|stemmer:porter|sentences:'\\n'|version:{version('rouge-score')}"
    return {**means, "number": len(found), "signature": signature}
