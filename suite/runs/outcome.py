"""What became of a job that ran in its own process, and how a person is told."""

from __future__ import annotations

import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from suite.runs.serving import Message

TAIL_LINES = 15
STACK_SECONDS = 0.3
"""Silence in a log after which a process is taken to have written its whole stack: it writes word by word."""


@dataclass(frozen=True)
class Failure:
    """Why a job has no result."""

    kind: Literal["error", "refused", "signal", "exit", "timeout"]
    """`refused`: what was asked for cannot be had (data that is not there, say), and `cause` says all."""
    cause: str
    """One or a few lines, for a person."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `value` is its result, or None where there is a `failure`."""

    value: Message | None
    failure: Failure | None
    seconds: float
    peak_bytes: int
    """The most resident memory the job and its workers were seen to hold, looked at every `POLL_SECONDS`."""
    log: Path
    hung: tuple[str, ...] = ()
    """The end of the log when time was up: what is stopped then may say more, and less to the point."""

    def report(self) -> str:
        """The failure's cause, then the end of the log, unless the cause says all."""
        cause = "" if self.failure is None else self.failure.cause
        refused = self.failure is not None and self.failure.kind == "refused"
        tail = [] if refused else self.hung or log_tail(self.log)
        if not tail:
            return cause
        return f"{cause}\n\nThe end of its output ({self.log}):\n" + "\n".join(f"  {line}" for line in tail)


def explain_exit(exit_code: int | None, peak_bytes: int) -> Failure:
    """Why a process that left no result ended, as far as its exit code and its peak memory tell."""
    if exit_code is None or exit_code >= 0:
        code = "unknown" if exit_code is None else exit_code
        return Failure("exit", f"the process ended without a result (exit code {code}): something called exit")
    name = signal.Signals(-exit_code).name
    if -exit_code == signal.SIGKILL:
        total = psutil.virtual_memory().total
        return Failure(
            "signal",
            "killed (SIGKILL), most likely for want of memory: "
            f"its peak was at least {_gib(peak_bytes)} of this machine's {_gib(total)}",
        )
    if -exit_code in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL):
        return Failure("signal", f"crashed in native code ({name}): the Python stack is in its output")
    return Failure("signal", f"ended by {name} from outside")


def log_tail(log: Path, *, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a log, none where there is no log; of an overwritten line (a progress bar) its last state."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    rows = [row.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for row in text.split("\n")]
    return [row for row in rows if row][-lines:]


def wait_until_said(log: Path, *, start: int, quiet: float, limit: float = 10.0) -> None:
    """Wait until the log has grown beyond `start` bytes and then not for `quiet` seconds; no longer than `limit`."""
    end = time.monotonic() + limit
    size, since = start, math.inf
    while (now := time.monotonic()) < end and now - since < quiet:
        if log_size(log) != size:
            size, since = log_size(log), now
        time.sleep(quiet / 10)


def log_size(log: Path) -> int:
    """In bytes; 0 where there is no log yet."""
    return log.stat().st_size if log.exists() else 0


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
