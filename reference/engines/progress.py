"""The time, the progress and the steps of a run, kept so that neither the host nor the device waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import torch

from touchstone.engines.ranks import Ranks
from touchstone.engines.training import Phase, Point, Progress, Report, TrainingRun
from touchstone.pipelines.pipeline import BatchSize, Score

REPORTS_PER_SECOND = 10
"""Progress reports, at most. Reading the loss for one synchronizes with the device."""
READ_LOSSES_EVERY = 500
"""Steps between two reads of the losses: rare enough to cost nothing, often enough to stop a run that diverges."""


class Clock:
    """Measures the seconds of each phase. An inner phase pauses the outer one: evaluation is not training.

    On a CUDA device a phase ends when its work on the device is done: entering and leaving a phase synchronizes.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._phases: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._charge()
        self._phases.append(name)
        self.seconds.setdefault(name, 0.0)
        try:
            yield
        finally:
            self._charge()
            self._phases.pop()

    def _charge(self) -> None:
        """Add the time since the last call to the current phase."""
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._phases:
            self.seconds[self._phases[-1]] += now - self._since
        self._since = now


class StepTimer:
    """Measures the seconds of each step: call `start` when training starts or continues, `mark` after every step.

    On a CUDA device a mark is an event in the device's stream. Events are read when the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[float | torch.cuda.Event] = []

    def start(self) -> None:
        self._marks = [self._now()]

    def mark(self) -> None:
        self._marks.append(self._now())

    def collect(self) -> list[float]:
        """Return the seconds of the steps since `start` or the last call."""
        marks, self._marks = self._marks, self._marks[-1:]
        if self._cuda and len(marks) > 1:
            marks[-1].synchronize()  # type: ignore[union-attr]
        return [self._between(first, second) for first, second in pairwise(marks)]

    def _now(self) -> float | torch.cuda.Event:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    @staticmethod
    def _between(first: float | torch.cuda.Event, second: float | torch.cuda.Event) -> float:
        if isinstance(first, float) or isinstance(second, float):
            return float(second) - float(first)  # type: ignore[arg-type]
        return float(first.elapsed_time(second)) / 1e3


class Reporter:
    """Passes progress to `report`, if there is one, at most `REPORTS_PER_SECOND` times a second."""

    def __init__(self, report: Report | None) -> None:
        self._report = report
        self._last = 0.0

    def progress(self, phase: Phase, step: int, steps: int, *, loss: Callable[[], float] | None = None) -> None:
        """Report a step. Step 0, the start of a phase, is always reported.

        Args:
            loss: called only if the step is reported.
        """
        now = time.perf_counter()
        if self._report is not None and (step == 0 or now - self._last >= 1 / REPORTS_PER_SECOND):
            self._last = now
            self._report(Progress(phase, step, steps, loss=None if loss is None else loss()))

    def saving(self, step: int, steps: int) -> None:
        """Report that a checkpoint is about to be written."""
        self._last = 0.0
        self.progress("save", step, steps)

    def scored(self, examples: int, *, score: Score) -> None:
        """Report the main score of an evaluation of this many examples."""
        if self._report is not None:
            self._report(Progress("evaluate", examples, examples, score=score))


class Step(NamedTuple):
    """One optimizer step of this rank; see `Session.step_done`."""

    loss: torch.Tensor
    sizes: Sequence[BatchSize]
    learning_rate: float


class StepLog:
    """Collects optimizer steps and writes them to the run: trajectory, seconds per step, totals.

    Losses stay on the device until `read`, since reading a loss would delay the next step.
    """

    def __init__(self, run: TrainingRun, *, ranks: Ranks, device: torch.device) -> None:
        self._run = run
        self._ranks = ranks
        self._timer = StepTimer(device)
        self._unread: list[Step] = []

    @property
    def unread(self) -> int:
        return len(self._unread)

    @property
    def done(self) -> int:
        """Optimizer steps so far, read or not."""
        return len(self._run.trajectory) + self.unread

    def start(self) -> None:
        """Start timing the next step."""
        self._timer.start()

    def add(self, loss: torch.Tensor, *, sizes: Sequence[BatchSize], learning_rate: float) -> None:
        self._timer.mark()
        self._unread.append(Step(loss, sizes, learning_rate))

    def read(self) -> list[Point]:
        """Write the unread steps to the run and return them.

        Losses and counts are summed over the ranks, times are those of the slowest rank. All ranks must call this.
        """
        steps, self._unread = self._unread, []
        if not steps:
            return []
        ranks, run = self._ranks, self._run
        seconds = ranks.max(self._timer.collect())
        losses = ranks.sum(torch.stack([step.loss for step in steps]).tolist())
        samples, tokens, padded, items = (
            ranks.sum([sum(getattr(size, name) for size in step.sizes) for step in steps])
            for name in ("examples", "tokens", "padded_tokens", "items")
        )
        last = run.trajectory[-1] if run.trajectory else Point(0, 0, 0, 0.0, 0.0, 0.0)
        for i, step in enumerate(steps):
            run.tokens += int(tokens[i])
            run.padded_tokens += int(padded[i])
            run.items += int(items[i])
            run.step_seconds.append(seconds[i])
            last = Point(
                step=last.step + 1,
                samples=last.samples + int(samples[i]),
                tokens=run.tokens,
                seconds=last.seconds + seconds[i],
                loss=losses[i],
                learning_rate=step.learning_rate,
            )
            run.trajectory.append(last)
        return run.trajectory[-len(steps) :]
