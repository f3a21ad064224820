"""Runs one job in a process of its own, so that whatever happens to it happens to nobody else.

A fork server imports torch, transformers and the reference once (see `touchstone.runs.job`); each job is forked from it
in a few milliseconds, as the leader of its own process group, with its output in a log file. The parent hears of it
over a pipe that carries JSON and nothing else. A job that raises, is killed, exits, hangs or loses its parent leaves
one `Failure` with its cause, and no process.

Posix only: there is no fork server elsewhere.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import math
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import psutil

# The inside of an isolated process: calls one job and tells the parent (`touchstone.runs.isolation`) how it ended.


Message = dict[str, Any]
"""Plain data: what `json` can write."""
Send = Callable[[Message], None]


class ToldError(Exception):
    """Its text is the whole cause, where it happened included: this is only where it was heard of."""


class Refused(Exception):
    """What a job raises where what it was asked for cannot be had: the message says all that a person needs."""


def job_of(target: str) -> Callable[[Message, Send], Message]:
    """What "package.module:function" names."""
    module, _, name = target.partition(":")
    found: Callable[[Message, Send], Message] = getattr(importlib.import_module(module), name)
    return found


def serve(
    target: str,
    payload: str,
    sender: multiprocessing.connection.Connection[Any, Any],
    log: str,
    environment: Mapping[str, str],
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    _redirect_output(log)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    lock = threading.Lock()  # an engine may report from another thread

    def post(message: Message) -> None:
        data = json.dumps(message).encode()
        with lock:
            sender.send_bytes(data)

    def send(message: Message) -> None:
        post({"kind": "message", "message": message})

    try:
        final = {"kind": "result", "value": job_of(target)(json.loads(payload), send)}
        post(final)
    except Refused as error:
        traceback.print_exc()
        post({"kind": "refused", "cause": str(error)})
    except Exception as error:
        if not isinstance(error, ToldError):
            traceback.print_exc()
        post({"kind": "error", "cause": describe(error)})
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _redirect_output(log: str) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)


def describe(error: BaseException) -> str:
    """An exception with what caused it, each with the place that raised it: one line a link."""
    if isinstance(error, ToldError | Refused):
        return str(error)
    lines: list[str] = []
    link: BaseException | None = error
    while link is not None and len(lines) < 10:
        frames = traceback.extract_tb(link.__traceback__)
        place = f" ({frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""
        text = str(link).strip()
        lines.append(("  caused by " if lines else "") + type(link).__name__ + (f": {text}" if text else "") + place)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\n".join(lines)


# What became of a job that ran in its own process, and how a person is told.


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


PRELOAD = ("touchstone.runs.job",)
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
