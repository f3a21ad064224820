"""Audit a script of the zoo in a process forked from one that has the libraries imported."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

PRELOAD = ["tests.zoo.preload"]
NEIGHBOURS = Path(__file__).parent / "clean" / "neighbours"
LOG_LINES = 15


def forked(function: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start a function in a process forked from the server that has imported torch, transformers and datasets."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def make_assets(folder: Path) -> Path:
    """Write the assets in a forked process, so that this one need not import torch, and return the folder."""
    from tests.zoo.assets import write_assets

    process = forked(_quietly, write_assets, folder)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"writing the zoo's assets ended with exit code {process.exitcode}")
    return folder


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

    The modules of `clean/neighbours` lie beside the script. The dict has two more keys: `seconds`, and `error` with the
    traceback if there is no report.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / "run"
        shutil.copytree(assets, folder)
        for module in NEIGHBOURS.glob("*.py"):
            shutil.copy(module, folder)
        (folder / name).write_text(text, encoding="utf-8")
        started = time.monotonic()
        process = forked(_audit, str(folder), name, arguments, options)
        process.join(timeout)
        late = process.is_alive()
        if late:
            process.kill()
            process.join()
        result = folder / "result.json"
        if result.exists() and not late:
            report = json.loads(result.read_text())
        else:
            report = {"error": f"not ready after {timeout:.0f} s" if late else f"exit code {process.exitcode}"}
        if "error" in report:
            lines = (
                (folder / "log.txt").read_text(errors="replace").splitlines() if (folder / "log.txt").exists() else []
            )
            report["error"] += "\nthe script's last lines:\n" + "\n".join(lines[-LOG_LINES:])
        report["seconds"] = time.monotonic() - started
    return report


def _audit(folder: str, name: str, arguments: tuple[str, ...], options: dict[str, Any]) -> None:
    import datasets

    from touchstone.auditing.script import audit_script

    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)  # workers of a script's loaders start as from a shell
    datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"  # nothing is read from or left for another run
    log_to("log.txt")
    try:
        result = audit_script(Path(name), arguments, **options).to_dict()
    except BaseException:
        result = {"error": traceback.format_exc()}
    Path("result.json").write_text(json.dumps(result))


def _quietly(function: Callable[[Path], object], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    log_to(os.devnull)
    function(folder)


def log_to(path: str) -> None:
    """Send the output of this process to a file."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
