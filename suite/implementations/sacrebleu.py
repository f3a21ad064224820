"""sacrebleu 2.6.0 (PyPI, `sacrebleu`): corpus BLEU with its defaults.

sacrebleu takes one list per reference, not one per example, so the adapter turns them. It refuses what it cannot turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics.bleu import BLEU


def bleu(predictions: Sequence[str], *, references: Sequence[str | Sequence[str]]) -> dict[str, Any]:
    metric = BLEU()
    found = metric.corpus_score(list(predictions), columns(references))
    return {
        "bleu": found.score,
        "precisions": found.precisions,
        "brevity_penalty": found.bp,
        "number": len(predictions),
        "signature": str(metric.get_signature()),
    }


def columns(references: Sequence[str | Sequence[str]]) -> list[list[str]]:
    """Return the first references of all examples, then the second ones, and so on."""
    rows = [[each] if isinstance(each, str) else list(each) for each in references]
    if any(len(row) != len(rows[0]) for row in rows):
        raise ValueError("examples with different numbers of references")
    return [[row[number] for row in rows] for number in range(len(rows[0]) if rows else 0)]
