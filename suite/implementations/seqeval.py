"""seqeval 1.2.2 (PyPI, `seqeval`): `classification_report` and `accuracy_score`, in the default and the strict mode.

Both of the contract's modes are passed on: `lenient` is seqeval's default, which knows no scheme; `strict` is
`mode="strict"` with the scheme's class. The adapter turns ids into tags and leaves positions at -100 out, as every
user of seqeval does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from seqeval.metrics import accuracy_score, classification_report
from seqeval.scheme import BILOU, IOB2, IOBES

SCHEMES = {"IOB2": IOB2, "IOBES": IOBES, "BILOU": BILOU}
Rows = Sequence[Sequence[int]]


def score_entities(
    predictions: Rows, *, references: Rows, names: Sequence[str], scheme: str = "IOB2", mode: str = "strict"
) -> dict[str, Any]:
    golds, guesses = tags(predictions, references, names)
    options = {"mode": "strict", "scheme": SCHEMES[scheme]} if mode == "strict" else {}
    signature = f"seqeval|scheme:{scheme}|mode:{mode}|version:{version('seqeval')}"
    return {**scores(golds, guesses, **options), "signature": signature}


def tags(predictions: Rows, references: Rows, names: Sequence[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Return gold and predicted tags without the positions whose reference is -100."""
    pairs = [
        [(names[gold], names[guess]) for guess, gold in zip(row, golds, strict=False) if gold != -100]
        for row, golds in zip(predictions, references, strict=False)
    ]
    return [[gold for gold, _ in row] for row in pairs], [[guess for _, guess in row] for row in pairs]


def scores(golds: list[list[str]], guesses: list[list[str]], **options: Any) -> dict[str, Any]:
    """Compute seqeval's report, and give its numbers the contract's names."""
    report = classification_report(golds, guesses, output_dict=True, **options)
    overall = {key: report.pop(key) for key in ("micro avg", "macro avg", "weighted avg")}["micro avg"]
    types = {kind: renamed(each) for kind, each in report.items()}
    return {**renamed(overall), "accuracy": accuracy_score(golds, guesses), "types": types}


def renamed(scores: Mapping[str, Any]) -> dict[str, Any]:
    names = {"precision": "precision", "recall": "recall", "f1": "f1-score", "number": "support"}
    return {ours: scores[theirs] for ours, theirs in names.items()}
