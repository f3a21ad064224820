"""Watch a training loop from within: `accelerator = touchstone.watch(Accelerator())`."""

from __future__ import annotations

import atexit
import contextlib
import sys
import time
from typing import Any, TypeVar

from touchstone.auditing.finding import Report
from touchstone.auditing.observing.observe import Observer
from touchstone.auditing.observing.record import Recorder
from touchstone.auditing.probe import Budget, run_probes

AnyAccelerator = TypeVar("AnyAccelerator")
STEPS = 4
"""Optimizer steps that are watched: enough to see what is left over from one step to the next."""


def watch(
    accelerator: AnyAccelerator, *, steps: int = STEPS, budget: Budget = "fast", task: str | None = None
) -> AnyAccelerator:
    """Watch the first optimizer steps of this script, print what is wrong with them, and return the accelerator.

    Training is the same, bit by bit, as without it: nothing is ended, shortened or changed. After the first steps the
    hooks are removed, the report is printed to the standard error, and training goes on at full speed. When the script
    ends, the faults are named once more. Under `touchstone audit` it does nothing: the script is observed already.

    Args:
        accelerator: the accelerate.Accelerator of the loop, or anything else in a loop without one.
        steps: optimizer steps that are watched.
        budget: which probes run, and for how long training may wait for them.
        task: the task, where the model's head does not tell.
    """
    if Observer.count == 0 and getattr(accelerator, "is_main_process", True):
        Watcher(accelerator, steps=steps, budget=budget, task=task).begin()
    return accelerator


class Watcher:
    """Watches the first optimizer steps of the running script.

    Attributes:
        report: the report, as soon as there is one.
        seconds: the time that the audit took.
    """

    def __init__(
        self, accelerator: Any, *, steps: int = STEPS, budget: Budget = "fast", task: str | None = None
    ) -> None:
        self.report: Report | None = None
        self.seconds = 0.0
        self._steps = steps
        self._budget = budget
        self._task = task
        self._recorder = Recorder(on_step=self._after_step, steps=steps)
        if hasattr(accelerator, "prepare"):
            self._recorder.accelerator = accelerator
        self._observer = Observer(self._recorder.patches)
        self._watching = False

    def begin(self) -> None:
        """Begin to watch. The report is made after the last watched step, or when the script ends before it."""
        self._observer.__enter__()
        self._watching = True
        atexit.register(self._at_exit)

    def end(self) -> None:
        """Remove all hooks, and make and print the report."""
        if not self._watching:
            return
        self._watching = self._recorder.active = False
        self._observer.__exit__()
        began = time.monotonic()
        if self._recorder.trace.updates:
            self.judge()
        else:
            _say("no optimizer step was seen, so nothing was checked")
        self.seconds = time.monotonic() - began

    def judge(self) -> None:
        """Make the report and print it. An error in it does not stop the training."""
        from touchstone.auditing.adapters.loop import subject_of

        try:
            subject = subject_of(self._recorder, maps=self._observer.maps, task=self._task, name=sys.argv[0])
            subject.repro = f"touchstone audit --probe {{probe}} {sys.argv[0]}"
            with contextlib.redirect_stdout(sys.stderr):
                self.report = run_probes(subject, budget=self._budget)
        except Exception as error:
            _say(f"the audit failed ({type(error).__name__}: {error}); training goes on")
        else:
            print(self.report, file=sys.stderr)
        self._recorder.release()

    def _after_step(self) -> None:
        if len(self._recorder.trace.updates) >= self._steps:
            # The step is not over: what comes after it is seen until the model is called for the next one.
            self._recorder.finish(self.end)

    def _at_exit(self) -> None:
        self.end()
        failures = self.report.failures() if self.report is not None else []
        if failures:
            _say(f"{len(failures)} faults were found: {', '.join(each.probe for each in failures)}")


def _say(text: str) -> None:
    print(f"touchstone.watch: {text}", file=sys.stderr)
