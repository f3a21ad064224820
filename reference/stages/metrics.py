"""The scores as `evaluate.Metric`s, for code that speaks evaluate: they are classes here, so nothing is downloaded.

    metric = EntityScores(keep_in_memory=True)
    for batch in batches:
        metric.add_batch(predictions=..., references=...)
    metric.compute(names=names, scheme="IOB2", mode="strict")

Without `keep_in_memory` evaluate buffers the examples in a file under its cache directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from touchstone.stages import scoring
from touchstone.stages.bleu import bleu
from touchstone.stages.rouge import rouge

TEXT = datasets.Value("string")
LABELS = datasets.Sequence(datasets.Value("int64"))


class EntityScores(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """`scoring.score_entities` with sentences of label ids as predictions and references; options go to `compute`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Entity-level precision, recall and F1.",
            citation="https://github.com/chakki-works/seqeval",
            inputs_description=scoring.score_entities.__doc__ or "",
            features=datasets.Features({"predictions": LABELS, "references": LABELS}),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[int]],
        references: Sequence[Sequence[int]],
        *,
        names: Sequence[str],
        scheme: str = "IOB2",
        mode: str = "strict",
    ) -> dict[str, Any]:
        return dict(scoring.score_entities(predictions, references=references, names=names, scheme=scheme, mode=mode))


class Perplexity(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """`scoring.perplexity` with one mean loss and one count of tokens a batch: `{"perplexity": ..., "tokens": ...}`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="exp of the token-weighted mean negative log-likelihood.",
            citation="",
            inputs_description=scoring.perplexity.__doc__ or "",
            features=datasets.Features({"losses": datasets.Value("float64"), "tokens": datasets.Value("int64")}),
        )

    def _compute(self, losses: Sequence[float], tokens: Sequence[int]) -> dict[str, float]:
        return {"perplexity": scoring.perplexity(losses, tokens=tokens), "tokens": int(sum(tokens))}


class Bleu(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """`stages.bleu` with one text and its list of references an example: `references=[["one", "another"], ...]`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Corpus BLEU by sacreBLEU.",
            citation="https://github.com/mjpost/sacrebleu",
            inputs_description=bleu.__doc__ or "",
            features=[
                datasets.Features({"predictions": TEXT, "references": references})
                for references in (datasets.Sequence(TEXT), TEXT)  # evaluate takes the first that fits
            ],
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[Any]) -> dict[str, Any]:
        return dict(bleu(predictions, references=references))


class Rouge(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """`stages.rouge` with texts as predictions and references; `newline` goes to `compute`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="ROUGE-1, -2, -L and -Lsum by rouge-score.",
            citation="https://github.com/google-research/google-research/tree/master/rouge",
            inputs_description=rouge.__doc__ or "",
            features=datasets.Features({"predictions": TEXT, "references": TEXT}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str], newline: str = "\n") -> dict[str, Any]:
        return dict(rouge(predictions, references=references, newline=newline))
