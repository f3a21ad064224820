"""The inside of an isolated process: calls one job and tells the parent (`suite.runs.running`) how it ended."""

from __future__ import annotations

import faulthandler
import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

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
