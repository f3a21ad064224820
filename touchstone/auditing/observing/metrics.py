"""Record the calls of metrics: of seqeval, scikit-learn, sacrebleu and evaluate."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from touchstone.auditing.observing.calls import copied, predictions_and_references
from touchstone.auditing.observing.frames import caller
from touchstone.auditing.observing.observe import Replace
from touchstone.auditing.observing.trace import MetricCall

if TYPE_CHECKING:
    from touchstone.auditing.observing.record import Recorder

METRICS = {
    "seqeval.metrics": ("f1_score", "precision_score", "recall_score", "accuracy_score", "classification_report"),
    "sklearn.metrics": ("f1_score", "precision_score", "recall_score", "accuracy_score", "classification_report"),
    "sacrebleu": ("corpus_bleu", "corpus_chrf", "raw_corpus_bleu"),
}
METRICS_KEPT = 40


class Metrics:
    """The hooks of a recorder on metrics."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._measuring = 0

    def patches(self, replace: Replace) -> dict[str, Callable[[ModuleType], None]]:
        """Return what to do with a module of metrics as soon as it has been imported, by its name."""
        functions = {name: partial(self._watch_metrics, replace=replace, names=METRICS[name]) for name in METRICS}
        return {"evaluate.module": lambda module: self._watch_evaluate(module, replace), **functions}

    def _watch_metrics(self, module: ModuleType, *, replace: Replace, names: tuple[str, ...]) -> None:
        for name in names:
            if hasattr(module, name):
                replace(module, name, partial(self._metric, name=f"{module.__name__}.{name}"))

    def _watch_evaluate(self, module: ModuleType, replace: Replace) -> None:
        for name in ("add", "add_batch", "compute"):
            replace(module.EvaluationModule, name, partial(self._metric, name=f".{name}"))

    def _metric(self, original: Any, name: str) -> Any:
        signature = inspect.signature(original)

        def metric(*arguments: Any, **options: Any) -> Any:
            """Note a call of a metric. (evaluate copies this function's code and appends to its docstring.)"""
            if not self._recorder.ready or self._measuring or len(self._recorder.trace.metrics) >= METRICS_KEPT:
                return original(*arguments, **options)
            given = predictions_and_references(signature, arguments, options)
            predictions, references = copied(given)
            full = name if not name.startswith(".") else f"{getattr(arguments[0], 'name', 'metric')}{name}"
            called = MetricCall(full, predictions, references, step=len(self._recorder.trace.updates), where=caller())
            self._measuring += 1
            try:
                called.result = original(*arguments, **options)
            finally:
                self._measuring -= 1
            self._recorder.trace.metrics.append(called)
            return called.result

        return metric
