"""What an evaluation did: metrics, batches, predictions, and what the metric function received.

`Evaluator` is the type of `Subject.evaluate`. `EvaluationRecord` is what one call returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from touchstone.auditing.finding import NotChecked

if TYPE_CHECKING:
    from touchstone.auditing.subject import Batch

FIGURES = 20_000_000
"""Predictions of an evaluation hold at most about this many numbers, 80 MB in float32."""


@dataclass
class Prediction:
    """What the model predicted for one batch, before the user's metric sees it.

    Args:
        batch: what the model received.
        loss: the loss of the batch, or None.
        outputs: logits, generated ids, or a tuple whose first entry is one of these.
        labels: the labels of the batch: a tensor or a tuple of tensors.
    """

    batch: Batch
    loss: float | None
    outputs: Any
    labels: Any


@dataclass
class EvaluationRecord:
    """One run of the user's evaluation on some rows.

    Args:
        metrics: what it returned.
        predictions: what the model predicted, batch by batch.
        calls: the predictions and labels that the metric function received, call by call.
        generations: the arguments of each call of `generate`.
        training: names of the modules that ran in training mode.
        gradient: the loss was computed with a graph.
        leftover: a parameter had a gradient at the end.
        changed: names of the parameters and buffers that the evaluation changed.
        error: what the evaluation raised, if it failed.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    predictions: list[Prediction] = field(default_factory=list)
    calls: list[tuple[Any, Any]] = field(default_factory=list)
    generations: list[Mapping[str, Any]] = field(default_factory=list)
    training: list[str] = field(default_factory=list)
    gradient: bool = False
    leftover: bool = False
    changed: list[str] = field(default_factory=list)
    error: Exception | None = None

    def need(self) -> EvaluationRecord:
        """Return the record.

        Raises:
            NotChecked: the evaluation failed.
        """
        if self.error is not None:
            text = str(self.error).splitlines()[0] if str(self.error) else ""
            raise NotChecked(f"the evaluation raised {type(self.error).__name__}: {text}")
        return self

    @property
    def loss(self) -> float:
        """The reported loss.

        Raises:
            NotChecked: no loss, or more than one, is reported.
        """
        found = [value for key, value in self.need().metrics.items() if key == "loss" or key.endswith("_loss")]
        if len(found) != 1 or not isinstance(found[0], (int, float)):
            raise NotChecked(f"the evaluation reports {len(found)} losses: the rows may have no labels")
        return float(found[0])

    def scores(self) -> dict[str, float]:
        """Return the metrics that are numbers, apart from the loss and the speed, without the prefix `eval_`."""
        skipped = ("loss", "runtime", "per_second", "epoch", "preparation_time", "memory")
        return {
            key.removeprefix("eval_"): float(value)
            for key, value in self.need().metrics.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and not any(s in key for s in skipped)
        }


class Pair(tuple[Any, Any]):
    """Outputs and labels that replace those of a prediction."""


Change = Callable[[Prediction, int], Any]
"""Returns other outputs for a prediction (or a pair of outputs and labels), given the index of its batch."""


class Evaluator(Protocol):
    """Runs the user's own evaluation on some rows, on a copy of the model."""

    def __call__(
        self,
        batch_size: int | None = None,
        rows: Sequence[int] | None = None,
        *,
        quiet: bool = True,
        change: Change | None = None,
        again: bool = False,
    ) -> EvaluationRecord:
        """Return the record of an evaluation. It is cached.

        Args:
            batch_size: rows in a batch, or None for the user's setting.
            rows: the rows to evaluate, or None for the first few.
            quiet: use the copy in float32 without dropout, and no beam search. Only a few tokens are generated
                in any case.
            change: the metric sees other predictions than the model's. The model does not run again.
            again: run again, although the same evaluation was run before.
        """
