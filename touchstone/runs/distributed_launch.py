"""Runs one job in several processes that a launcher of the user's starts (torchrun, accelerate launch, srun).

The job that `touchstone.runs.isolation` isolates is then this: it starts the launcher, listens to the ranks on this
node, passes on what they report, and ends with the result or with the cause of the first thing that
went wrong. Timeouts, interrupts and the log are those of any isolated job; all processes end with it.
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
    Message,
    Outcome,
    Refused,
    Send,
    ToldError,
    describe,
    job_of,
    log_size,
    log_tail,
    run_isolated,
    wait_until_said,
)

# One rank of a run that a launcher started: it joins the others, does the job, and tells the suite how it went. CMD
# -m touchstone.runs.distributed_launch SOCKET TARGET PAYLOAD `touchstone.runs.distributed_launch` adds this to the
# user's CMD and listens at SOCKET, on its own node. Each rank there says who it is, and, if it must be, what went
# wrong; the first of them (local rank 0) also reports progress and the result. A rank on another node finds no
# socket: the suite hears nothing of it, unless it runs on that node too.


def main(address: str, target: str, payload: str) -> int:
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    channel = Channel(address)
    try:
        # After the channel, so that the suite can end a rank that still imports.
        from touchstone.engines.ranks import joined

        job = json.loads(payload)
        with joined(job["device"]) as ranks:
            channel.post({"kind": "rank", "rank": ranks.rank, "world": ranks.world, "pid": os.getpid()})
            leads = ranks.local_rank == 0
            value = job_of(target)(job, channel.send if leads else _say_nothing)
        channel.post({"kind": "result", "value": value} if leads else {"kind": "done"}, last=True)
        code = 0
    except Exception as error:
        traceback.print_exc()
        kind = "refused" if isinstance(error, Refused) else "error"
        channel.post({"kind": kind, "cause": describe(error), "time": time.time()}, last=True)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _say_nothing(message: Message) -> None:
    pass


class Channel:
    """To the suite's process on this node, if there is one. A rank ends when that process does."""

    def __init__(self, address: str) -> None:
        self._connection: Connection | None = None
        self._lock = threading.Lock()  # an engine may report from another thread
        self._over = False
        if not Path(address).exists():  # another node
            if os.environ.get("RANK", os.environ.get("SLURM_PROCID")) == "0":
                sys.exit("Error: rank 0 runs on another node than pytest, which hears nothing of it: run pytest there")
            return
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
            self._connection = Connection(client.detach())
        threading.Thread(target=self._die_with_the_suite, daemon=True).start()

    def post(self, message: Message, *, last: bool = False) -> None:
        self._over = last
        if self._connection is not None:
            data = json.dumps(message).encode()
            with self._lock:
                self._connection.send_bytes(data)

    def send(self, message: Message) -> None:
        self.post({"kind": "message", "message": message})

    def _die_with_the_suite(self) -> None:
        assert self._connection is not None
        self._connection.poll(None)  # nothing is ever sent here: what comes is the end
        if self._over:
            return
        if os.getpgid(0) == os.getpid():  # torchrun gives each rank a group of its own, which no other signal reaches
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # Not by way of the interpreter's end: after an error the group's own threads may wait for ranks that are gone.
    os._exit(main(*sys.argv[1:]))


LAUNCH = "touchstone.runs.distributed_launch:launch"
POLL_SECONDS = 0.2
LAST_WORDS_SECONDS = 10.0
"""What a launcher may take to end after its ranks did: torchrun looks at them every tenth of a second, then sums up."""


def run_launched(
    launcher: Sequence[str],
    target: str,
    *,
    payload: Message,
    log: Path,
    timeout: float | None = None,
    on_message: Callable[[Message], None] | None = None,
) -> Outcome:
    """`run_isolated`, in as many processes as `launcher` starts.

    Args:
        launcher: a command that starts Python programs, to which `-m MODULE ARGUMENTS` can be added.
        payload: says the `device` among other things: `cpu`, or `cuda` for one GPU a process.
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
    """The isolated job: start the ranks and wait for the result."""
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
            raise ToldError(f"--launch: {launcher[0]} cannot be started: {error.strerror}") from error
        return _Listener(server, process, name=Path(launcher[0]).name, log=log).listen(send)


class _Listener:
    """Hears the ranks on this node out."""

    def __init__(self, server: socket.socket, process: subprocess.Popen[bytes], *, name: str, log: Path) -> None:
        self.server = server
        self.process = process
        self.name = name
        self.log = log
        self.ranks: dict[Connection, Message] = {}
        """Every open connection, with what the rank at its other end said of itself."""
        signal.signal(signal.SIGUSR1, self._show_where_ranks_hang)

    def listen(self, send: Send) -> Message:
        missed: Message | None = None
        deadline = math.inf
        while True:
            ended = self.process.poll() is not None
            messages = [message for one in self._ready() if (message := self._receive(one)) is not None]
            for message in messages:
                if message["kind"] == "message":
                    send(message["message"])
                elif message["kind"] == "result":  # whatever happens to a rank now, the run is whole
                    self._let_it_end()
                    value: Message = message["value"]
                    return value
            for trouble in sorted((m for m in messages if m["kind"] in ("gone", "refused", "error")), key=_moment):
                if trouble["kind"] == "refused":
                    raise Refused(trouble["cause"])
                if not _only_missed_another(trouble):
                    raise ToldError(self._cause(trouble))
                if missed is None:
                    missed, deadline = trouble, time.monotonic() + LAST_WORDS_SECONDS
            if missed is not None and (ended or time.monotonic() > deadline):
                raise ToldError(self._cause(missed))
            if ended and not messages:
                raise ToldError(self._why_it_ended())

    def _ready(self) -> Iterable[Any]:
        return wait([self.server, *self.ranks], timeout=POLL_SECONDS)

    def _receive(self, ready: Any) -> Message | None:
        if ready is self.server:
            self.ranks[Connection(self.server.accept()[0].detach())] = {}
            return None
        try:
            message: Message = json.loads(ready.recv_bytes())
        except (EOFError, OSError):  # it died, perhaps in the midst of a message
            return self.ranks.pop(ready) | {"kind": "gone"}
        if message["kind"] == "rank":
            self.ranks[ready] = message
        elif message["kind"] in ("done", "result", "refused", "error"):
            message |= {key: value for key, value in self.ranks.pop(ready).items() if key != "kind"}
        return message

    def _cause(self, trouble: Message) -> str:
        known = "rank" in trouble
        who = f"rank {trouble['rank']} of {trouble['world']}" if known else "a rank that had not joined the others"
        if trouble["kind"] == "error":
            return f"{who}: {trouble['cause']}"
        self._let_it_end()
        name = self._signal(trouble.get("pid"))
        if name == "SIGKILL":
            return f"{who} was killed (SIGKILL), most likely for want of memory"
        if name is not None:
            return f"{who} was ended by {name}: see its output"
        return f"{who} ended without a result: it was killed, or called exit; see its output"

    def _signal(self, pid: int | None) -> str | None:
        """What torchrun says that a process died of."""
        said = re.search(rf"Signal \d+ \((SIG\w+)\) received by PID {pid}\b", "\n".join(log_tail(self.log, lines=200)))
        return said and said[1]

    def _why_it_ended(self) -> str:
        tail = log_tail(self.log, lines=200)
        errors = [line.strip() for line in tail if re.search(r"\b(error|\w+Error)\b:", line, flags=re.IGNORECASE)]
        cause = f"{self.name} ended with exit code {self.process.returncode}, and no process of it had reported"
        if errors:
            cause += f": {errors[-1]}"
        if re.search("EADDRINUSE|address already in use", "\n".join(tail), flags=re.IGNORECASE):
            cause += "\nAnother run has the port: `torchrun --standalone` takes a free one, --master-port another"
        return cause

    def _let_it_end(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_WORDS_SECONDS)

    def _show_where_ranks_hang(self, *_: Any) -> None:
        for rank in self.ranks.values():  # one after the other: stacks that are written together cannot be read
            start = log_size(self.log)
            with contextlib.suppress(ProcessLookupError, KeyError):
                os.kill(rank["pid"], signal.SIGUSR1)
                wait_until_said(self.log, start=start, quiet=STACK_SECONDS)


def _moment(trouble: Message) -> float:
    """When an error was raised; after the errors, what was found dead at the same look."""
    moment: float = trouble.get("time", math.inf)
    return moment


def _only_missed_another(trouble: Message) -> bool:
    """Whether a rank fell because another one had: whoever is first has something else to say, or can say nothing."""
    return re.search(r"gloo|NCCL|connection (closed|reset)", trouble.get("cause", ""), re.IGNORECASE) is not None
