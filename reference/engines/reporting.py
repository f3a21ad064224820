"""How a run says how far it is: often enough for an eye, rarely enough to cost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from reference.engines.training import Phase, Progress, Report
from reference.pipelines.pipeline import Score

A_SECOND = 10
"""To read a loss for it waits for the device."""


class Reporter:
    """Passes on to `report`, where there is one, what is not too soon after the last."""

    def __init__(self, report: Report | None) -> None:
        self._report = report
        self._last = 0.0

    def say(self, phase: Phase, step: int, steps: int, *, loss: Callable[[], float] | None = None) -> None:
        """The beginning of a phase, step 0, is never too soon.

        Args:
            loss: called only if it is told.
        """
        now = time.perf_counter()
        if self._report is not None and (step == 0 or now - self._last >= 1 / A_SECOND):
            self._last = now
            self._report(Progress(phase, step, steps, loss=None if loss is None else loss()))

    def saving(self, step: int, steps: int) -> None:
        """A checkpoint is about to be written."""
        self._last = 0.0
        self.say("save", step, steps)

    def scored(self, examples: int, *, score: Score) -> None:
        """An evaluation of so many examples is done."""
        if self._report is not None:
            self._report(Progress("evaluate", examples, examples, score=score))
