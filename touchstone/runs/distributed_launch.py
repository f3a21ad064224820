"""Runs one job in several processes, the ranks, that a launcher starts (torchrun, accelerate launch, srun).

`run_launched` isolates a job (see `touchstone.runs.isolation`) that starts the launcher with the arguments
`-m touchstone.runs.distributed_launch SOCKET TARGET PAYLOAD` and listens at the socket. Each rank on this node connects
and reports its number and, if it fails, the cause. The first of them (local rank 0) also reports progress and the
result. A rank on another node finds no socket and reports nothing. Timeouts, interrupts and the log are those of any
isolated job; all ranks end with it.

torch.distributed.elastic has its own error files, but only torchrun propagates them to its caller; they contain neither
progress nor results, and no cause for a rank that was killed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from touchstone.runs.isolation import (
    STACK_SECONDS,
    TAIL_LINES,
    Message,
    Outcome,
    Refused,
    ReportedError,
    Send,
    describe_error,
    load_job,
    log_size,
    log_tail,
    run_isolated,
    wait_for_output,
)

# One rank: joins the others, does the job, and reports to the listener. --------------------------------------------


def main(address: str, target: str, payload: str) -> int:
    """Do the job as one rank; return the exit code."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    channel = Channel(address)
    try:
        # Import after connecting, so that the suite can end a rank that is still importing.
        from touchstone.engines.ranks import joined

        job = json.loads(payload)
        with joined(job["device"]) as ranks:
            channel.post({"kind": "rank", "rank": ranks.rank, "world": ranks.world, "pid": os.getpid()})
            leads = ranks.local_rank == 0
            value = load_job(target)(job, channel.send if leads else _discard)
        channel.post({"kind": "result", "value": value} if leads else {"kind": "done"}, last=True)
        code = 0
    except Exception as error:
        traceback.print_exc()
        kind = "refused" if isinstance(error, Refused) else "error"
        excerpt = traceback.format_exc().splitlines()[-TAIL_LINES:]
        channel.post({"kind": kind, "cause": describe_error(error), "excerpt": excerpt, "time": time.time()}, last=True)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _discard(message: Message) -> None:
    pass


class Channel:
    """The connection of a rank to the suite's process on this node, if any. The rank ends with that process."""

    def __init__(self, address: str) -> None:
        self._connection: Connection | None = None
        self._lock = threading.Lock()  # an engine may report from another thread
        self._over = False
        if not Path(address).exists():  # another node
            if os.environ.get("RANK", os.environ.get("SLURM_PROCID")) == "0":
                sys.exit(
                    "Error: rank 0 is on a different node from pytest, so its results cannot be received: "
                    "run pytest on rank 0's node"
                )
            return
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
            self._connection = Connection(client.detach())
        threading.Thread(target=self._end_with_the_suite, daemon=True).start()

    def post(self, message: Message, *, last: bool = False) -> None:
        self._over = last
        if self._connection is not None:
            data = json.dumps(message).encode()
            with self._lock:
                self._connection.send_bytes(data)

    def send(self, message: Message) -> None:
        self.post({"kind": "message", "message": message})

    def _end_with_the_suite(self) -> None:
        assert self._connection is not None
        self._connection.poll(None)  # the suite sends nothing, so this returns when the connection closes
        if self._over:
            return
        if os.getpgid(0) == os.getpid():  # torchrun starts each rank in a new group, which no other signal reaches
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


# The isolated job: starts the launcher and listens to the ranks on this node. ---------------------------------------

LAUNCH = "touchstone.runs.distributed_launch:launch"
POLL_SECONDS = 0.2
LAUNCHER_SECONDS = 10.0
"""Seconds that a launcher may take to end after its ranks: torchrun polls them ten times a second and then reports."""


def run_launched(
    launcher: Sequence[str],
    target: str,
    *,
    payload: Message,
    log: Path,
    timeout: float | None = None,
    on_message: Callable[[Message], None] | None = None,
) -> Outcome:
    """Call a job as `run_isolated` does, but in all processes that `launcher` starts.

    Args:
        launcher: a command that starts Python programs and accepts `-m MODULE ARGUMENTS` at its end.
        payload: must contain `device`: `cpu`, or `cuda` for one GPU per process.
    """
    with tempfile.TemporaryDirectory(prefix="touchstone-") as directory:
        job = {
            "launcher": list(launcher),
            "target": target,
            "payload": payload,
            "directory": directory,
            "log": str(log),
        }
        return run_isolated(LAUNCH, payload=job, log=log, timeout=timeout, on_message=on_message)


def launch(payload: Message, send: Send) -> Message:
    """Start the ranks and wait for the result: the job that `run_launched` isolates."""
    launcher, log = payload["launcher"], Path(payload["log"])
    address = os.path.join(payload["directory"], "ranks")
    arguments = ["-m", "touchstone.runs.distributed_launch", address, payload["target"], json.dumps(payload["payload"])]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(socket.SOMAXCONN)
        try:
            process = subprocess.Popen(
                [*launcher, *arguments], env=os.environ | {"PYTHONPATH": path}, stdin=subprocess.DEVNULL
            )
        except OSError as error:
            raise ReportedError(f"--launch: {launcher[0]} cannot be started: {error.strerror}") from error
        return _Listener(server, process, name=Path(launcher[0]).name, log=log).listen(send)


class _Listener:
    """Receives what the ranks on this node report, and finds the rank that failed first."""

    def __init__(self, server: socket.socket, process: subprocess.Popen[bytes], *, name: str, log: Path) -> None:
        self.server = server
        self.process = process
        self.name = name
        self.log = log
        self.ranks: dict[Connection, Message] = {}
        """The open connections, with each rank's introduction."""
        signal.signal(signal.SIGUSR1, self._show_where_ranks_hang)

    def listen(self, send: Send) -> Message:
        """Pass progress on and return the result.

        Raises:
            Refused: a rank refused the job.
            ReportedError: a rank failed or the launcher ended without a result.
        """
        follow_up: Message | None = None
        deadline = math.inf
        while True:
            ended = self.process.poll() is not None
            messages = [message for one in self._ready() if (message := self._receive(one)) is not None]
            for message in messages:
                if message["kind"] == "message":
                    send(message["message"])
                elif message["kind"] == "result":  # the run is complete, whatever happens to a rank now
                    self._wait_for_launcher()
                    value: Message = message["value"]
                    return value
            for trouble in sorted((m for m in messages if m["kind"] in ("gone", "refused", "error")), key=_moment):
                if trouble["kind"] == "refused":
                    raise Refused(trouble["cause"])
                if not _is_follow_up(trouble):
                    raise ReportedError(self._cause(trouble), excerpt=trouble.get("excerpt", ()))
                if follow_up is None:  # wait for the rank that failed first
                    follow_up, deadline = trouble, time.monotonic() + LAUNCHER_SECONDS
            if follow_up is not None and (ended or time.monotonic() > deadline):
                raise ReportedError(self._cause(follow_up), excerpt=follow_up.get("excerpt", ()))
            if ended and not messages:
                raise ReportedError(self._why_launcher_ended())

    def _ready(self) -> Iterable[Any]:
        return wait([self.server, *self.ranks], timeout=POLL_SECONDS)

    def _receive(self, ready: Any) -> Message | None:
        if ready is self.server:
            self.ranks[Connection(self.server.accept()[0].detach())] = {}
            return None
        try:
            message: Message = json.loads(ready.recv_bytes())
        except (EOFError, OSError):  # the rank died, perhaps in the middle of a message
            return self.ranks.pop(ready) | {"kind": "gone"}
        if message["kind"] == "rank":
            self.ranks[ready] = message
        elif message["kind"] in ("done", "result", "refused", "error"):
            message |= {key: value for key, value in self.ranks.pop(ready).items() if key != "kind"}
        return message

    def _cause(self, trouble: Message) -> str:
        """Describe in one or a few lines why a rank failed."""
        known = "rank" in trouble
        who = f"rank {trouble['rank']} of {trouble['world']}" if known else "a rank that had not joined the others"
        if trouble["kind"] == "error":
            return f"{who}: {trouble['cause']}"
        self._wait_for_launcher()
        name = self._signal(trouble.get("pid"))
        if name == "SIGKILL":
            return f"{who} was killed (SIGKILL), most likely because memory ran out"
        if name is not None:
            return f"{who} was ended by {name}: see its output"
        return f"{who} ended without a result: it was killed, or called exit; see its output"

    def _signal(self, pid: int | None) -> str | None:
        """Return the signal that ended a process, which torchrun writes to the log."""
        log = "\n".join(log_tail(self.log, lines=200))
        found = re.search(rf"Signal \d+ \((SIG\w+)\) received by PID {pid}\b", log)
        return found and found[1]

    def _why_launcher_ended(self) -> str:
        tail = log_tail(self.log, lines=200)
        errors = [line.strip() for line in tail if re.search(r"\b(error|\w+Error)\b:", line, flags=re.IGNORECASE)]
        cause = f"{self.name} ended with exit code {self.process.returncode} before any of its processes reported"
        if errors:
            cause += f": {errors[-1]}"
        if re.search("EADDRINUSE|address already in use", "\n".join(tail), flags=re.IGNORECASE):
            cause += "\nAnother run uses the port: `torchrun --standalone` chooses a free one, --master-port sets one"
        return cause

    def _wait_for_launcher(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LAUNCHER_SECONDS)

    def _show_where_ranks_hang(self, *_: Any) -> None:
        for rank in self.ranks.values():  # one after the other, so that their stacks are not interleaved
            start = log_size(self.log)
            with contextlib.suppress(ProcessLookupError, KeyError):
                os.kill(rank["pid"], signal.SIGUSR1)
                wait_for_output(self.log, start=start, quiet=STACK_SECONDS)


def _moment(trouble: Message) -> float:
    """Return the time of an error, for sorting: ranks that were found dead come after those with an error."""
    moment: float = trouble.get("time", math.inf)
    return moment


def _is_follow_up(trouble: Message) -> bool:
    """Return True for an error of a rank that only lost its connection to another, which failed first."""
    return re.search(r"gloo|NCCL|connection (closed|reset)", trouble.get("cause", ""), re.IGNORECASE) is not None


if __name__ == "__main__":
    # A normal exit could block: after an error, threads of the process group may wait for ranks that have ended.
    os._exit(main(*sys.argv[1:]))
