"""torchmetrics 1.9.0 (PyPI, `torchmetrics`): the functions for BLEU, ROUGE and SQuAD.

* `bleu`: `sacre_bleu_score` with its defaults, which are a fraction; the adapter gives percent.
* `rouge`: `rouge_score` with stemming, but without ROUGE-Lsum, for which it downloads NLTK's punkt.
* `squad_scores`: `squad`, which wants at least one reference for each example.

All scores are in single precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchmetrics.functional.text import rouge_score, sacre_bleu_score, squad

supports = {"newline": ["\n"], "squad_scores": {"references": all}}
choices = {"digits": 4}


def bleu(predictions: Sequence[str], *, references: Sequence[str | Sequence[str]]) -> dict[str, Any]:
    rows = [[each] if isinstance(each, str) else list(each) for each in references]
    return {"bleu": 100 * sacre_bleu_score(list(predictions), rows).item()}


def rouge(predictions: Sequence[str], *, references: Sequence[str]) -> dict[str, Any]:
    kinds = ("rouge1", "rouge2", "rougeL")
    found = rouge_score(list(predictions), list(references), use_stemmer=True, rouge_keys=kinds)
    return {kind: 100 * found[f"{kind}_fmeasure"].item() for kind in kinds}


def squad_scores(predictions: Sequence[str], *, references: Sequence[Sequence[str]]) -> dict[str, Any]:
    guesses = [{"prediction_text": text, "id": str(number)} for number, text in enumerate(predictions)]
    golds = [
        {"answers": {"answer_start": [0] * len(texts), "text": list(texts)}, "id": str(number)}
        for number, texts in enumerate(references)
    ]
    return {name: value.item() for name, value in squad(guesses, golds).items()}  # type: ignore[arg-type]
