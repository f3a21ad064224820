"""What an engine offers: a function that trains a pipeline and one that evaluates a model.

Only the first is needed. The second has a default, so a plain `train` function is a whole engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from touchstone.engines.evaluation import predict_validation
from touchstone.engines.training import Execution, Recipe, Report, TrainingRun
from touchstone.pipelines.pipeline import Pipeline

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Train(Protocol):
    """Train a pipeline with a recipe and return the finished run."""

    def __call__(
        self, pipeline: Pipeline, *, recipe: Recipe, execution: Execution, report: Report | None = None
    ) -> TrainingRun: ...


class Evaluate(Protocol):
    """Predict the validation split with a model, which is the same afterwards.

    `predictions[i]` belongs to example i; `Pipeline.score` computes the metrics from them. Batches have
    `execution.eval_batch_size` examples, or an engine's own number where that changes nothing but the speed.
    """

    def __call__(self, pipeline: Pipeline, model: PreTrainedModel, *, execution: Execution) -> list[Any]: ...


@dataclass(frozen=True)
class Engine:
    """A way to train any pipeline.

    Attributes:
        train: trains.
        evaluate: evaluates as this engine does between epochs; by default as the plain engines do.
    """

    train: Train
    evaluate: Evaluate = predict_validation
