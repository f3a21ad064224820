"""The figures of a run as a record keeps them: scores, losses, times, tokens, memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from suite.numbers import Amount, Count, Number
from suite.text import Line

if TYPE_CHECKING:  # reading a record needs no torch
    from reference.engines.training import Evaluation as EngineEvaluation
    from reference.engines.training import Point
    from reference.pipelines.pipeline import Score

MAX_POINTS = 200
"""Points of a trajectory: more than a plot shows."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quality(_Model):
    """One metric with all that is needed to compare it with another."""

    name: Line
    value: Number
    n: Count
    higher_is_better: bool
    signature: Line
    lower: Number | None = None
    """What the metric can be at all; None where it has no end, and in records from before this was kept."""
    upper: Number | None = None

    @classmethod
    def of(cls, score: Score) -> Self:
        return cls(
            name=score.name,
            value=score.value,
            n=score.n,
            higher_is_better=score.higher_is_better,
            signature=score.signature,
            lower=score.lower,
            upper=score.upper,
        )


class TrajectoryPoint(_Model):
    step: Count
    samples: Count
    tokens: Count
    seconds: Amount
    loss: Number
    learning_rate: Amount


class Trajectory(_Model):
    """Training loss by step. `thinned`: only some of the `steps` are here, evenly spaced, first and last among them."""

    steps: Count
    thinned: bool
    points: Annotated[tuple[TrajectoryPoint, ...], Field(max_length=MAX_POINTS)]

    @classmethod
    def of(cls, points: Sequence[Point]) -> Self:
        n = len(points)
        chosen = range(n) if n <= MAX_POINTS else [i * (n - 1) // (MAX_POINTS - 1) for i in range(MAX_POINTS)]
        return cls(
            steps=points[-1].step if n else 0,
            thinned=n > MAX_POINTS,
            points=tuple(
                TrajectoryPoint(
                    step=p.step,
                    samples=p.samples,
                    tokens=p.tokens,
                    seconds=round(p.seconds, 4),
                    loss=p.loss,
                    learning_rate=p.learning_rate,
                )
                for p in (points[i] for i in chosen)
            ),
        )


class Evaluation(_Model):
    epoch: Amount
    step: Count
    seconds: Amount
    scores: tuple[Quality, ...]

    @classmethod
    def of(cls, evaluation: EngineEvaluation) -> Self:
        return cls(
            epoch=evaluation.epoch,
            step=evaluation.step,
            seconds=round(evaluation.seconds, 4),
            scores=tuple(Quality.of(score) for score in evaluation.scores),
        )


class StepSeconds(_Model):
    """The time of each optimizer step, in order, the first (warming up) among them; the summary is of the rest."""

    n: Count
    mean: Amount | None
    median: Amount | None
    p90: Amount | None
    sd: Amount | None
    first: Amount | None
    seconds: Annotated[tuple[Amount, ...], Field(max_length=1_000_000)]
    """Rounded to 0.1 ms."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        steady = list(seconds[1:])
        return cls(
            n=len(seconds),
            first=round(seconds[0], 6) if seconds else None,
            mean=round(statistics.fmean(steady), 6) if steady else None,
            median=round(statistics.median(steady), 6) if steady else None,
            p90=round(sorted(steady)[int(0.9 * (len(steady) - 1))], 6) if steady else None,
            sd=round(statistics.stdev(steady), 6) if len(steady) > 1 else None,
            seconds=tuple(round(second, 4) for second in seconds),
        )


class Tokens(_Model):
    """What training went through, over all epochs. Throughput is that of real tokens."""

    real: Count
    padded: Count


class Launch(_Model):
    """The processes that trained together. The record's tokens and energy are sums over them, its memory is that of the
    one that held most, each of its times that of the slowest.

    Attributes:
        launcher: the name of the command that started them; its arguments may name hosts and paths.
        host_bytes, device_bytes: each process's peak, in the order of the ranks.
    """

    launcher: Line
    processes: Annotated[int, Field(ge=1)]
    nodes: Annotated[int, Field(ge=1)]
    host_bytes: tuple[Count, ...]
    device_bytes: tuple[Count, ...] | None


class Memory(_Model):
    """Peaks of the run's process. `device_bytes` is None where there is no device beside the host."""

    host_bytes: Count
    device_bytes: Count | None
