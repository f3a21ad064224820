"""Runs one job in a process of its own, so that whatever happens to it happens to nobody else.

A fork server imports torch, transformers and the reference once (see `suite.runs.job`); each job is forked from it in a
few milliseconds, as the leader of its own process group, with its output in a log file. The parent hears of it over a
pipe that carries JSON and nothing else. A job that raises, is killed, exits, hangs or loses its parent leaves one
`Failure` with its cause, and no process.

Posix only: there is no fork server elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import psutil

from suite.runs.outcome import (
    STACK_SECONDS,
    TAIL_LINES,
    Failure,
    Outcome,
    explain_exit,
    log_size,
    log_tail,
    wait_until_said,
)
from suite.runs.serving import Message, serve

PRELOAD = ("suite.runs.job",)
"""What the fork server imports. It must start no thread and touch no device: both do not survive a fork."""
GRACE_SECONDS = 3.0
"""Between asking a job to end and killing it."""
POLL_SECONDS = 0.2
"""How often the parent looks at the clock and at the job's memory."""


def start_server() -> None:
    """Start the fork server, which imports in the background while the caller goes on; nothing if it runs already."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOAD))
    # The server imports before it is told our `sys.path` (CPython 3.11): its environment tells it. A look for GPUs must
    # go through NVML there, since a CUDA context cannot be forked. A job gets its parent's environment.
    path = os.pathsep.join(dict.fromkeys(os.path.abspath(entry) for entry in sys.path))
    with _environment(PYTHONPATH=path, PYTORCH_NVML_BASED_CUDA_CHECK="1"), _interrupts_ignored():
        multiprocessing.forkserver.ensure_running()


def run_isolated(
    target: str,
    *,
    payload: Message,
    log: Path,
    timeout: float | None = None,
    on_message: Callable[[Message], None] | None = None,
) -> Outcome:
    """Call `target` ("package.module:function") as `function(payload, send)` in its own process and wait for it.

    Args:
        target: must be importable by name; it gets `payload` and a function that sends the parent a message, and
            returns plain data.
        log: the job's stdout and stderr, native code's too, go to this file.
        timeout: seconds after which the job is asked to end, then killed with all its children.
        on_message: is called with every message as it comes. What it raises (an interrupt among them) stops the job and
            passes on.
    """
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=serve, args=(target, json.dumps(payload), sender, str(log), dict(os.environ)), name=target
    )
    started = time.monotonic()
    watch = _Watch(deadline=None if timeout is None else started + timeout)
    timed_out, hung = False, []
    try:
        _start(process)
        sender.close()
        final = _listen(process, receiver, watch, on_message)
    except _TimedOut:
        timed_out, final = True, None
        hung = _where_it_hangs(process, log)
    except (ConnectionError, EOFError) as error:
        final = {"kind": "error", "cause": f"the fork server is gone ({type(error).__name__}: {error})"}
    finally:
        receiver.close()
        exit_code = _end(process, patient=not timed_out and sys.exc_info()[0] is None)
    seconds = time.monotonic() - started
    if final is not None and final["kind"] == "result":
        return Outcome(final["value"], None, seconds, watch.peak_bytes, log)
    if final is not None:
        failure = Failure(final["kind"], final["cause"])
    elif timed_out:
        failure = Failure("timeout", f"timed out: it had not finished after {timeout:g} s and was stopped")
    else:
        failure = explain_exit(exit_code, watch.peak_bytes)
    return Outcome(None, failure, seconds, watch.peak_bytes, log, tuple(hung))


class _TimedOut(Exception):
    """The deadline passed."""


class _Watch:
    """What the parent keeps an eye on between messages: the clock and the job's memory."""

    def __init__(self, *, deadline: float | None) -> None:
        self.deadline = deadline
        self.peak_bytes = 0
        self._next_look = 0.0

    def look(self, pid: int | None) -> None:
        now = time.monotonic()
        if pid is not None and now >= self._next_look:
            self._next_look = now + POLL_SECONDS
            self.peak_bytes = max(self.peak_bytes, _resident_bytes(pid))
        if self.deadline is not None and now > self.deadline:
            raise _TimedOut


def _start(process: Any) -> None:
    """Fork the job from the server, or from a new one if it is dead (the kernel may have killed it for its memory)."""
    for attempts_left in (1, 0):
        start_server()
        try:
            with _without_main_module():
                process.start()
            return
        except (ConnectionError, EOFError):
            if not attempts_left:
                raise
            time.sleep(0.2)  # until its end can be waited for


def _listen(
    process: Any,
    receiver: multiprocessing.connection.Connection[Any, Any],
    watch: _Watch,
    on_message: Callable[[Message], None] | None,
) -> Message | None:
    """Pass messages on until the job's last one, or None if it ends without it."""
    while True:
        ready = multiprocessing.connection.wait([receiver, process.sentinel], timeout=POLL_SECONDS)
        if receiver in ready:
            try:
                message = cast(Message, json.loads(receiver.recv_bytes()))
            except (EOFError, OSError):  # the end, or a message cut short by the job's death
                return None
            if message["kind"] in ("result", "error", "refused"):
                return message
            if on_message is not None:
                on_message(message["message"])
        elif process.sentinel in ready:
            return None
        watch.look(process.pid)


def _end(process: Any, *, patient: bool) -> int | None:
    """See to it that neither the job nor anything it started is left; its exit code."""
    if process.pid is None:
        return None
    if patient:
        process.join(GRACE_SECONDS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.exitcode is None:
            _signal_group(process, number)
            process.join(GRACE_SECONDS)
    exit_code = cast("int | None", process.exitcode)
    _signal_group(process, signal.SIGKILL)  # workers may outlive the leader of their group
    if exit_code is not None:
        process.close()
    return exit_code


def _signal_group(process: Any, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        # No such group: either all is over, or the job has not come so far as to found it.
        if process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _where_it_hangs(process: Any, log: Path) -> list[str]:
    """The end of the job's log, after faulthandler has written the Python stacks of all its processes to it."""
    start = log_size(log)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGUSR1)
        wait_until_said(log, start=start, quiet=3 * STACK_SECONDS)
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(start)
        said = file.read().count(b"\n")
    return log_tail(log, lines=max(said, TAIL_LINES))


def _resident_bytes(pid: int) -> int:
    """Of the process and its descendants; 0 if it is gone."""
    total = 0
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(pid)
        total = leader.memory_info().rss
        for child in leader.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += child.memory_info().rss
    return total


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A server started within does not hear Ctrl-C: it must outlive it to report how its jobs ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Jobs are named by module and function: a child must not first run the parent's main program again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
