"""The Hugging Face course, sections 7.4 and 7.5 (15 April 2026): BLEU of translations, ROUGE of summaries.

Written anew with the same behaviour, on top of evaluate's metrics `sacrebleu` and `rouge` (version 0.4.6), whose
behaviour is written anew too, because evaluate loads them from a network:

* `sacrebleu` calls `corpus_bleu` with its defaults. The section hands over lists of one reference.
* `rouge` averages by rouge-score's bootstrap, and returns the middle F-measure of each kind as a number. The section
  reads `.mid.fmeasure` of each.

Texts come as they are after decoding; for ROUGE, with one sentence per line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator
from sacrebleu import corpus_bleu

from touchstone.suite.implementations.sacrebleu import columns

supports = {"newline": ["\n"]}
choices = {"digits": 4}


def bleu(predictions: Sequence[str], *, references: Sequence[str | Sequence[str]]) -> dict[str, Any]:
    return {"bleu": corpus_bleu(list(predictions), columns(references)).score}


def rouge(predictions: Sequence[str], *, references: Sequence[str]) -> dict[str, Any]:
    result: dict[str, Any] = evaluate_rouge(predictions, references, samples=1)  # it fails before the samples matter
    result = {key: value.mid.fmeasure * 100 for key, value in result.items()}
    return {key: round(value, 4) for key, value in result.items()}


def evaluate_rouge(
    predictions: Sequence[str], references: Sequence[str], *, samples: int = 1000
) -> dict[str, np.float64]:
    """Compute what `evaluate.load("rouge").compute(..., use_stemmer=True)` returns."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    aggregator = BootstrapAggregator(n_samples=samples)
    for target, guess in zip(references, predictions, strict=False):
        aggregator.add_scores(scorer.score(target, guess))
    return {key: np.float64(value.mid.fmeasure) for key, value in aggregator.aggregate().items()}
