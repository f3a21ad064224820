"""The scores as `evaluate.Metric`s, for code that uses evaluate. As classes, they need no download.

    metric = EntityScores(keep_in_memory=True)
    for batch in batches:
        metric.add_batch(predictions=..., references=...)
    metric.compute(names=names, scheme="IOB2", mode="strict")

Without `keep_in_memory` evaluate buffers the examples in a file under its cache directory. Importing this module needs
evaluate, which `touchstone[suite]` installs; the stages themselves do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets

from touchstone.stages import scoring
from touchstone.stages.bleu import bleu
from touchstone.stages.extras import suite_extra
from touchstone.stages.rouge import rouge

with suite_extra("touchstone.stages.metrics", "evaluate"):
    import evaluate

TEXT = datasets.Value("string")
LABELS = datasets.Sequence(datasets.Value("int64"))


class EntityScores(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """`score_entities` as a metric: predictions and references are sentences of label ids; `compute` takes options."""

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
    """`perplexity` as a metric over one mean loss and one token count per batch; it returns `perplexity`, `tokens`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exponential of the token-weighted mean negative log-likelihood.",
            citation="",
            inputs_description=scoring.perplexity.__doc__ or "",
            features=datasets.Features({"losses": datasets.Value("float64"), "tokens": datasets.Value("int64")}),
        )

    def _compute(self, losses: Sequence[float], tokens: Sequence[int]) -> dict[str, float]:
        return {"perplexity": scoring.perplexity(losses, tokens=tokens), "tokens": int(sum(tokens))}


class Bleu(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """`bleu` as a metric: one text and its list of references per example, `references=[["one", "another"], ...]`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Corpus BLEU by sacreBLEU.",
            citation="https://github.com/mjpost/sacrebleu",
            inputs_description=bleu.__doc__ or "",
            features=[
                datasets.Features({"predictions": TEXT, "references": references})
                for references in (datasets.Sequence(TEXT), TEXT)  # evaluate uses the first that fits
            ],
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[Any]) -> dict[str, Any]:
        return dict(bleu(predictions, references=references))


class Rouge(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """`rouge` as a metric: predictions and references are texts. Pass `newline` to `compute`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="ROUGE-1, -2, -L and -Lsum by rouge-score.",
            citation="https://github.com/google-research/google-research/tree/master/rouge",
            inputs_description=rouge.__doc__ or "",
            features=datasets.Features({"predictions": TEXT, "references": TEXT}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str], newline: str = "\n") -> dict[str, Any]:
        return dict(rouge(predictions, references=references, newline=newline))
