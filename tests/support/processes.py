"""Processes that tests start and that must be gone afterwards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psutil


def assert_gone(pids: Sequence[int]) -> None:
    """Fail unless all processes end within two seconds. A killed process is a zombie until init reaps it."""
    deadline = time.monotonic() + 2
    left = set(pids)
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE}
        time.sleep(0.02)
    assert left == set()


class Stopping:
    """A callback for messages that notes the `pids` of the first message and raises an exception."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.pids: list[int] = []

    def __call__(self, message: dict[str, Any]) -> None:
        self.pids += message["pids"]
        raise self.error
