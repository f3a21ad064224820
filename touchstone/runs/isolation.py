"""Runs one job in a separate process, so that nothing that happens to the job can harm the caller.

A fork server imports torch, transformers and the engines once (see `touchstone.runs.job`). Each job is forked from it
in a few milliseconds, leads its own process group, and writes its output to a log file. The parent receives messages as
JSON through a pipe. A job that raises, is killed, exits, hangs or loses its parent ends as one `Failure` with its
cause, and leaves no process behind.

The order of this module: the child's side, the outcome, the parent's side. It works on Posix systems only, because
others have no fork server.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from touchstone.fields import optional_import

Message = dict[str, Any]
"""Plain data that JSON can represent."""
Send = Callable[[Message], None]


Job = Callable[[Message, Send], Message]

# The child's side: calls the job and reports how it ended. ----------------------------------------------------------


class ReportedError(Exception):
    """An error of another process. Its text is the complete cause; the traceback of this exception is irrelevant.

    Args:
        excerpt: lines to show instead of the end of the log, to which several processes may have written.
    """

    def __init__(self, cause: str, *, excerpt: Sequence[str] = ()) -> None:
        super().__init__(cause)
        self.excerpt = tuple(excerpt)


class Refused(Exception):
    """Raised by a job that cannot do what was requested. The message is all that the user needs."""


def load_job(target: str) -> Job:
    """Return the function that "package.module:function" names."""
    module, _, name = target.partition(":")
    found: Job = getattr(importlib.import_module(module), name)
    return found


def serve(
    target: str,
    payload: str,
    sender: multiprocessing.connection.Connection[Any, Any],
    log: str,
    environment: Mapping[str, str],
) -> None:
    """Call the job in this process; send its messages and its result, or the cause of its failure, to the parent."""
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
        post({"kind": "result", "value": load_job(target)(json.loads(payload), send)})
    except Refused as error:
        traceback.print_exc()
        post({"kind": "refused", "cause": str(error)})
    except Exception as error:
        excerpt = error.excerpt if isinstance(error, ReportedError) else ()
        if not isinstance(error, ReportedError):
            traceback.print_exc()
        post({"kind": "error", "cause": describe_error(error), "excerpt": excerpt})
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


def describe_error(error: BaseException) -> str:
    """Describe an exception and its causes, one line for each, with the place that raised it."""
    if isinstance(error, ReportedError | Refused):
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


# The outcome of a job. ----------------------------------------------------------------------------------------------

TAIL_LINES = 15
STACK_SECONDS = 0.3
"""A process writes its stack piece by piece. It is complete if nothing was added to the log for this long."""


@dataclass(frozen=True)
class Failure:
    """Why a job has no result.

    Attributes:
        kind: `refused` if the request cannot be fulfilled, for example because data is missing.
        cause: one or a few lines for the user.
    """

    kind: Literal["error", "refused", "signal", "exit", "timeout"]
    cause: str


@dataclass(frozen=True)
class Outcome:
    """The result of a job, or its failure.

    Attributes:
        value: the result; None if there is a `failure`.
        peak_bytes: the peak resident memory of the job and its children, sampled every `POLL_SECONDS`.
        excerpt: lines to show instead of the end of the log: the end of the log at the moment of a timeout (what is
            written later, while processes are stopped, is less helpful), or the traceback of the rank that failed.
    """

    value: Message | None
    failure: Failure | None
    seconds: float
    peak_bytes: int
    log: Path
    excerpt: tuple[str, ...] = ()

    def report(self) -> str:
        """Return the failure's cause and the end of the log. For a refused job, the cause alone."""
        cause = "" if self.failure is None else self.failure.cause
        refused = self.failure is not None and self.failure.kind == "refused"
        tail = [] if refused else self.excerpt or log_tail(self.log)
        if not tail:
            return cause
        return f"{cause}\n\nThe end of its output ({self.log}):\n" + "\n".join(f"  {line}" for line in tail)


def explain_exit(exit_code: int | None, peak_bytes: int) -> Failure:
    """Explain why a process ended without a result, from its exit code and its peak memory."""
    if exit_code is None or exit_code >= 0:
        code = "unknown" if exit_code is None else exit_code
        return Failure("exit", f"the process ended without a result (exit code {code}): something in it called exit")
    name = signal.Signals(-exit_code).name
    if -exit_code == signal.SIGKILL:
        total = optional_import("psutil").virtual_memory().total
        return Failure(
            "signal",
            "killed (SIGKILL), most likely because memory ran out: "
            f"its peak was at least {_gib(peak_bytes)} of this machine's {_gib(total)}",
        )
    if -exit_code in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL):
        return Failure("signal", f"crashed in native code ({name}): its output has the Python stack")
    return Failure("signal", f"ended by {name} from another process")


def log_tail(log: Path, *, lines: int = TAIL_LINES) -> list[str]:
    """Return the last lines of a log, an empty list if there is no log. A progress bar counts as its last state."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    rows = [row.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for row in text.split("\n")]
    return [row for row in rows if row][-lines:]


def wait_for_output(log: Path, *, start: int, quiet: float, limit: float = 10.0) -> None:
    """Wait until the log has grown beyond `start` bytes and has then been unchanged for `quiet` seconds.

    Gives up after `limit` seconds.
    """
    end = time.monotonic() + limit
    size, since = start, math.inf
    while (now := time.monotonic()) < end and now - since < quiet:
        if log_size(log) != size:
            size, since = log_size(log), now
        time.sleep(quiet / 10)


def log_size(log: Path) -> int:
    """Return the size of a log in bytes, 0 if there is none yet."""
    return log.stat().st_size if log.exists() else 0


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


# The parent's side: starts the job, watches it and ends it. ---------------------------------------------------------

PRELOAD = ("touchstone.runs.job",)
"""Modules that the fork server imports. They must start no thread and touch no device: neither survives a fork."""
GRACE_SECONDS = 3.0
"""Seconds between SIGTERM and SIGKILL."""
POLL_SECONDS = 0.2
"""Seconds between two checks of the deadline and of the job's memory."""


def start_server() -> None:
    """Start the fork server unless it is running. It imports in the background while the caller continues."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOAD))
    # The server imports before it receives our `sys.path` (CPython 3.11), so PYTHONPATH carries it. The server must
    # look for GPUs through NVML, since a CUDA context cannot be forked. Jobs get the environment of their parent.
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
    """Call a job in a separate process and wait for it.

    Args:
        target: "package.module:function". The function is called as `function(payload, send)`, where `send` passes a
            message to the parent, and returns plain data.
        log: the file for the job's stdout and stderr, including those of native code.
        timeout: seconds after which the job is stopped with all its children: by SIGTERM, then by SIGKILL.
        on_message: called with every message of the job. An exception that it raises, including KeyboardInterrupt,
            stops the job and propagates.
    """
    optional_import("psutil")  # if it is missing, fail before the job starts
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=serve, args=(target, json.dumps(payload), sender, str(log), dict(os.environ)), name=target
    )
    started = time.monotonic()
    watch = _Watch(deadline=None if timeout is None else started + timeout)
    timed_out, excerpt = False, []
    try:
        _start(process)
        sender.close()
        final = _listen(process, receiver, watch, on_message)
    except _TimedOut:
        timed_out, final = True, None
        excerpt = _where_it_hangs(process, log)
    except (ConnectionError, EOFError) as error:
        final = {"kind": "error", "cause": f"the fork server died ({type(error).__name__}: {error})"}
    finally:
        receiver.close()
        exit_code = _end(process, patient=not timed_out and sys.exc_info()[0] is None)
    seconds = time.monotonic() - started
    if final is not None and final["kind"] == "result":
        return Outcome(final["value"], None, seconds, watch.peak_bytes, log)
    if final is not None:
        failure = Failure(final["kind"], final["cause"])
        excerpt = final.get("excerpt", [])
    elif timed_out:
        failure = Failure("timeout", f"timed out: it had not finished after {timeout:g} s and was stopped")
    else:
        failure = explain_exit(exit_code, watch.peak_bytes)
    return Outcome(None, failure, seconds, watch.peak_bytes, log, tuple(excerpt))


class _TimedOut(Exception):
    """The deadline passed."""


class _Watch:
    """The deadline and the memory of a job, which the parent checks between messages."""

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
    """Fork the job from the server, or from a new one if the server is dead (the kernel may have killed it)."""
    for attempts_left in (1, 0):
        start_server()
        try:
            with _without_main_module():
                process.start()
            return
        except (ConnectionError, EOFError):
            if not attempts_left:
                raise
            time.sleep(0.2)  # until the dead server can be reaped


def _listen(
    process: Any,
    receiver: multiprocessing.connection.Connection[Any, Any],
    watch: _Watch,
    on_message: Callable[[Message], None] | None,
) -> Message | None:
    """Pass messages on and return the job's last one; None if the job ends without it."""
    while True:
        ready = multiprocessing.connection.wait([receiver, process.sentinel], timeout=POLL_SECONDS)
        if receiver in ready:
            try:
                message = cast(Message, json.loads(receiver.recv_bytes()))
            except (EOFError, OSError):  # the job ended, perhaps in the middle of a message
                return None
            if message["kind"] in ("result", "error", "refused"):
                return message
            if on_message is not None:
                on_message(message["message"])
        elif process.sentinel in ready:
            return None
        watch.look(process.pid)


def _end(process: Any, *, patient: bool) -> int | None:
    """End the job and everything it started; return its exit code."""
    if process.pid is None:
        return None
    if patient:
        process.join(GRACE_SECONDS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.exitcode is None:
            _signal_group(process, number)
            process.join(GRACE_SECONDS)
    exit_code = cast("int | None", process.exitcode)
    _signal_group(process, signal.SIGKILL)  # children may outlive the leader of their group
    if exit_code is not None:
        process.close()
    return exit_code


def _signal_group(process: Any, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        # No such group: everything has ended, or the job has not yet created its group.
        if process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _where_it_hangs(process: Any, log: Path) -> list[str]:
    """Make the job write its Python stacks to the log, and return the end of the log."""
    start = log_size(log)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGUSR1)
        wait_for_output(log, start=start, quiet=3 * STACK_SECONDS)
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(start)
        added = file.read().count(b"\n")
    return log_tail(log, lines=max(added, TAIL_LINES))


def _resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants; 0 if it has ended."""
    psutil = optional_import("psutil")
    total = 0
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(pid)
        total = int(leader.memory_info().rss)
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
    """Let a server started in this block ignore Ctrl-C: it must live on to report how its jobs ended."""
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
    """Keep the child from running the parent's main program again, which multiprocessing would do."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
