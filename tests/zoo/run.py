"""Audit a script of the zoo in a process forked from one that has the libraries imported."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

PRELOAD = ["tests.zoo.preload"]


def audit_text(
    text: str,
    assets: Path,
    *,
    name: str = "train.py",
    arguments: tuple[str, ...] = (),
    timeout: float = 300,
    **options: Any,
) -> dict[str, Any]:
    """Write a script into a copy of the assets, audit it there, and return the report as a dict.

    The dict has two more keys: `seconds`, and `error` with the traceback if there is no report.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        shutil.copytree(assets, folder)
        (folder / name).write_text(text, encoding="utf-8")
        started = time.monotonic()
        process = context.Process(target=_audit, args=(str(folder), name, arguments, options))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
        result = folder / "result.json"
        report = json.loads(result.read_text()) if result.exists() else {"error": f"exit code {process.exitcode}"}
        report["seconds"] = time.monotonic() - started
    return report


def _audit(folder: str, name: str, arguments: tuple[str, ...], options: dict[str, Any]) -> None:
    from touchstone.auditing.script import audit_script

    os.chdir(folder)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        result = audit_script(Path(name), arguments, **options).to_dict()
    except BaseException:
        result = {"error": traceback.format_exc()}
    Path("result.json").write_text(json.dumps(result))
