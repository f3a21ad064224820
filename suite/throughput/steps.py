"""Time training steps: the engines take turns with the same examples, recipe and model, each in its own process.

The speed of a machine varies over minutes, so two long runs cannot be compared. Here every engine takes some steps,
then each again, so that the variation affects all of them. Evaluation is not timed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from touchstone.engines import load_engine
from touchstone.engines.training import Execution, Recipe, TrainingRun
from touchstone.engines.work import WorkError, minimum_work
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import Batch, Columns, FeatureRows, Pipeline, Score
from touchstone.records.efficiency import efficiency_of
from touchstone.records.rates import measure_rates
from touchstone.runs.isolation import Message, Send, run_isolated
from touchstone.sources import Access, open_source
from touchstone.specs.spec import load_spec
from touchstone.stages.ragged import Ragged

WAYS = ("trainer:fp32", "loop:fp32", "packed:fp32", "packed:bf16")
"""Engine and precision. The others are compared with the first."""
TAKE_STEPS = f"{__name__}:take_steps"
STEPS = 10
"""Timed steps of a round. Warm-up steps come first, which allocate memory and prepare kernels."""
WARM_UP = (3, 1 / 40)
"""Warm-up steps: at least this number, and at least this fraction of all steps of the recipe."""


class StepsError(Exception):
    """An engine could not be timed. The message gives the reason."""


def race(target: str, payload: Message, *, ways: Sequence[str], rounds: int, log: Path) -> dict[str, list[Message]]:
    """Return the results of `target` by way, one for each round.

    Args:
        target: `take_steps`, or another job with the same payload (see `touchstone.runs.isolation`).
        payload: the `spec`, `profile` and `mirror`.
        ways: each `engine:precision`.

    Raises:
        StepsError: a job failed.
    """
    found: dict[str, list[Message]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways:
            engine, _, precision = way.rpartition(":")
            outcome = run_isolated(
                target,
                payload=payload | {"engine": engine, "precision": precision, "count": number == rounds - 1},
                log=log,
            )
            if outcome.value is None:
                raise StepsError(f"{payload['spec']}, {way}: {outcome.report()}")
            found[way].append(outcome.value)
    return found


def take_steps(payload: Message, send: Send) -> Message:
    """Return the `seconds` of each step, `samples` and real `tokens` per step, and all `steps` of the recipe.

    Also the `floor` of a step in seconds: None if `count` is false or the arithmetic cannot be counted.
    """
    spec = load_spec(payload["spec"], profile=payload["profile"])
    mirror = None if payload["mirror"] is None else Path(payload["mirror"])
    source = open_source(spec.data, spec.checkpoint, access=Access(mirror=mirror, dataset=None, checkpoint=None))
    pipeline = TrainingAlone(PIPELINES[spec.task](source, options=spec.options, seed=1))
    in_all = _steps_of(spec.recipe, examples=FeatureRows(pipeline.columns("train")).size)
    warm_up = max(WARM_UP[0], round(WARM_UP[1] * in_all))
    recipe = spec.recipe.model_copy(update={"stop_after": warm_up + STEPS})
    execution = Execution(seed=1, precision=payload["precision"])
    run = load_engine(payload["engine"]).train(pipeline, recipe=recipe, execution=execution)
    steps = len(run.step_seconds)
    return {
        "steps": in_all,
        "seconds": run.step_seconds[warm_up:],
        "samples": run.trajectory[-1].samples / steps,
        "tokens": run.tokens / steps,
        "floor": _floor(pipeline, run, execution=execution) if payload["count"] else None,
    }


def _steps_of(recipe: Recipe, *, examples: int) -> int:
    in_all = math.ceil(recipe.epochs * math.ceil(math.ceil(examples / recipe.batch_size) / recipe.accumulation))
    return min(in_all, recipe.stop_after or in_all)


def _floor(pipeline: Pipeline, run: TrainingRun, *, execution: Execution) -> float | None:
    """Return the floor of a step in seconds: the least time that this machine could do its work in."""
    try:
        work = minimum_work(pipeline, run, seed=execution.seed)
    except WorkError:
        return None
    rates = measure_rates("cpu", precision=execution.precision, state_bytes=work.state_bytes)
    efficiency = efficiency_of(work, rates=rates, train_seconds=sum(run.step_seconds))
    return None if efficiency.floor is None else efficiency.floor.seconds / len(run.step_seconds)


class Delegating(Pipeline):
    """A pipeline that forwards to another. Subclasses override some methods."""

    def __init__(self, inner: Pipeline) -> None:
        super().__init__(inner.source, options=inner.options, seed=inner.seed)
        self.inner = inner
        self.task = inner.task  # type: ignore[misc]

    @property
    def tokenizer(self) -> Any:
        return self.inner.tokenizer

    @property
    def example(self) -> str:
        return self.inner.example

    def columns(self, split: str) -> Columns:
        return self.inner.columns(split)

    def collate(self, features: Any, *, train: bool) -> Batch:
        return self.inner.collate(features, train=train)

    def model(self) -> Any:
        return self.inner.model()

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return self.inner.loss(model, batch)

    def predict(self, model: torch.nn.Module, batch: Batch) -> list[Any]:
        return self.inner.predict(model, batch)

    def score(self, predictions: Sequence[Any]) -> list[Score]:
        return self.inner.score(predictions)


class TrainingAlone(Delegating):
    """A pipeline with a single validation example, whose prediction is empty."""

    def columns(self, split: str) -> Columns:
        columns = self.inner.columns("train")
        return columns if split == "train" else first_rows(columns, 1)

    def predict(self, model: torch.nn.Module, batch: Batch) -> list[Any]:
        return [()] * batch["size"].examples

    def score(self, predictions: Sequence[Any]) -> list[Score]:
        return [Score("none", 0.0, len(predictions), True, "none")]


def first_rows(columns: Columns, count: int) -> Columns:
    """Return the first `count` rows, or all if there are fewer."""
    count = min(count, FeatureRows(columns).size)
    return {
        name: column.take(np.arange(count)) if isinstance(column, Ragged) else column[:count]
        for name, column in columns.items()
    }
