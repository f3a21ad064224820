"""One rank of a run that a launcher started: it joins the others, does the job, and tells the suite how it went.

    CMD -m suite.runs.launched SOCKET TARGET PAYLOAD

`suite.runs.launching` adds this to the user's CMD and listens at SOCKET, on its own node. Each rank there says who it
is, and, if it must be, what went wrong; the first of them (local rank 0) also reports progress and the result. A rank
on another node finds no socket: the suite hears nothing of it, unless it runs on that node too.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from suite.runs.serving import Message, Refused, describe, job_of


def main(address: str, target: str, payload: str) -> int:
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    channel = Channel(address)
    try:
        # After the channel, so that the suite can end a rank that still imports.
        from reference.engines.ranks import joined

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
