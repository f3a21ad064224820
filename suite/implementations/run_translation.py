"""transformers' example run_translation.py (version 4.56): `compute_metrics`.

Written anew with the same behaviour: evaluate's `sacrebleu` with one reference per example, rounded to four digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sacrebleu import corpus_bleu

from touchstone.suite.implementations.sacrebleu import columns

choices = {"digits": 4}


def bleu(predictions: Sequence[str], *, references: Sequence[str | Sequence[str]]) -> dict[str, Any]:
    predictions, references = postprocess_text(predictions, references)
    result = {"bleu": corpus_bleu(predictions, columns(references)).score}
    return {name: round(value, 4) for name, value in result.items()}


def postprocess_text(predictions: Sequence[str], references: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    listed = [[each] if isinstance(each, str) else each for each in references]
    return [text.strip() for text in predictions], [[text.strip() for text in texts] for texts in listed]
