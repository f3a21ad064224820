"""Measure how long the audited process has worked, so that limits do not depend on how busy the machine is."""

from __future__ import annotations

import time

PATIENCE = 4.0
"""Waiting counts this much less than work: a run on a machine with four times the load sees as much as on an idle one,
and a run that only waits, such as for the workers of a loader, still ends."""


class Stopwatch:
    """Measures the work of the thread that made it.

    The CPU time of this one thread counts, not that of the process: a computation with eight threads would count eight
    times.
    """

    def __init__(self) -> None:
        self._worked = time.thread_time()
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """The seconds that the thread has worked, or a quarter of those that have passed if that is more."""
        return max(time.thread_time() - self._worked, (time.monotonic() - self._began) / PATIENCE)
