"""Time by phase, and the time of each training step, without a device ever being waited for in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch


class Clock:
    """Seconds by phase. An inner phase stops the outer one: evaluation within training is not training.

    On a CUDA device the phases' boundaries wait for it, since work that was handed over belongs to the phase that
    handed it over.
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
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._phases:
            self.seconds[self._phases[-1]] += now - self._since
        self._since = now


class StepTimer:
    """Seconds of each step, from marks: `start` when training begins or goes on, `mark` after every step.

    On a CUDA device a mark is an event in its stream, read only when the device is idle anyway.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[float | torch.cuda.Event] = []

    def start(self) -> None:
        self._marks = [self._now()]

    def mark(self) -> None:
        self._marks.append(self._now())

    def collect(self) -> list[float]:
        """Seconds of the steps since `start`; the marks begin anew at the last one."""
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
