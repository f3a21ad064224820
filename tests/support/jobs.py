"""Jobs for `test_running`, each of which goes wrong in one way. They run in separate processes."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from touchstone.runs.isolation import Refused

Message = dict[str, Any]


def answer(payload: Message, send: Any) -> Message:
    send({"step": 1})
    send({"step": 2})
    print("some output")
    os.system("echo output of a child")
    return {"sum": payload["a"] + payload["b"]}


def look_around(payload: Message, send: Any) -> Message:
    torch = sys.modules.get("torch")
    return {
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "torch": torch is not None,
        "cuda": torch is not None and torch.cuda.is_initialized(),
        "pytest": "_pytest.main" in sys.modules,
        "python_path": os.environ.get("PYTHONPATH"),
        "variable": os.environ.get("TOUCHSTONE_TRIED"),
        "directory": os.getcwd(),
        "interrupt": signal.getsignal(signal.SIGINT) == signal.SIG_DFL,
    }


def large(payload: Message, send: Any) -> Message:
    for _ in range(20):
        send({"text": "x" * 100_000})
    return {"text": "é" * 1_000_000}


def fail(payload: Message, send: Any) -> Message:
    print("\rstep 1\rstep 2\rstep 3")
    try:
        raise KeyError("tags")
    except KeyError as error:
        raise ValueError("the data has no column 'tags'") from error


def refuse(payload: Message, send: Any) -> Message:
    print("reading the data")
    raise Refused("data.parquet has no column 'tags': it has words")


def return_what_json_cannot_write(payload: Message, send: Any) -> Message:
    return {"model": object()}


def leave(payload: Message, send: Any) -> Message:
    os._exit(3)


def leave_by_sys_exit(payload: Message, send: Any) -> Message:
    sys.exit("that is enough")


def kill_itself(payload: Message, send: Any) -> Message:
    held = bytearray(os.urandom(1 << 20)) * 300
    time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)
    return {"held": len(held)}


def crash(payload: Message, send: Any) -> Message:
    ctypes.string_at(0)
    return {}


def run_out_of_memory(payload: Message, send: Any) -> Message:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    return {"held": len(bytearray(1 << 40))}


def hang(payload: Message, send: Any) -> Message:
    """Hang with a child. Both ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(
        [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
    )
    send({"pids": [os.getpid(), child.pid]})
    time.sleep(600)
    return {}


def leave_a_child_behind(payload: Message, send: Any) -> Message:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return {"pids": [child.pid]}


# Jobs that replace a training run, so that tests of the suite are fast.


def replay(payload: Message, send: Any) -> Message:
    """Return the record of another run with this seed."""
    send({"phase": "train", "step": 1, "steps": 2, "loss": 1.5, "score": None})
    record = json.loads(Path(os.environ["REPLAYED"]).read_text(encoding="utf-8"))
    return {"record": record | {"seed": payload["seed"]}}


def first_killed(payload: Message, send: Any) -> Message:
    if payload["seed"] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return replay(payload, send)


def first_fails(payload: Message, send: Any) -> Message:
    if payload["seed"] == 1:
        fail(payload, send)
    return replay(payload, send)


def second_hangs(payload: Message, send: Any) -> Message:
    if payload["seed"] != 2:
        return replay(payload, send)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {child.pid}\n")
    time.sleep(600)
    return {}


def blocks_results(payload: Message, send: Any) -> Message:
    """Put a file in the place of the record's folder."""
    result = replay(payload, send)
    results, hardware = Path(os.environ["RESULTS"]), result["record"]["hardware"]
    results.mkdir()
    (results / f"{hardware['name']}-{hardware['id'][:6]}").write_text("in the way")
    return result
