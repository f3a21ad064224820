"""Audit the subjects, run the reproductions, and write what came out to record.json."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.zoo.assets import read_jsonl, write_assets
from tools.findings.subjects import SUBJECTS, Subject

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORD = HERE / "record.json"
TIMEOUT = 900


def run(*, examples: Path, metrics: Path, only: Iterable[str] | None = None, budget: str = "default") -> dict[str, Any]:
    """Audit the subjects and return the record. With `only`, the others keep what the last record says of them."""
    old = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {"subjects": [], "reproductions": []}
    kept = {each["id"]: each for each in old["subjects"]}
    chosen = set(only) if only is not None else {each.id for each in SUBJECTS}
    with tempfile.TemporaryDirectory() as temporary:
        assets = write_data(Path(temporary) / "assets", metrics)
        results = []
        for subject in SUBJECTS:
            if subject.id in chosen or subject.id not in kept:
                print(subject.id, end=" ", flush=True)
                kept[subject.id] = audit(subject, assets=assets, examples=examples, budget=budget)
                print(kept[subject.id]["seconds"], "s", kept[subject.id]["error"], flush=True)
            results.append(kept[subject.id])
        reproductions = [reproduce(path) for path in sorted((HERE / "reproductions").glob("*.py"))]
    return {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "budget": budget,
        "subjects": results,
        "reproductions": reproductions,
    }


def write_data(folder: Path, metrics: Path) -> Path:
    """Write the zoo's assets, the same data in the shapes that the example scripts read, and the metrics."""
    write_assets(folder)
    for path in sorted(folder.glob("*.jsonl")):
        rows = read_jsonl(path)
        text = "".join(json.dumps(_shaped(path.name, row)) + "\n" for row in rows)
        if path.name.startswith("questions"):
            data = [{"id": str(number), **row} for number, row in enumerate(rows)]
            text = json.dumps({"data": data})
        path.with_suffix(".json").write_text(text, encoding="utf-8")
    for metric in metrics.iterdir():
        shutil.copytree(metric, folder / metric.name)
    return folder


def _shaped(name: str, row: dict[str, Any]) -> dict[str, Any]:
    if name.startswith("translations"):
        return {"translation": {"en": row["source"], "fr": row["target"]}}
    return row


def audit(subject: Subject, *, assets: Path, examples: Path, budget: str) -> dict[str, Any]:
    """Audit one subject in a process of its own, and return its part of the record."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        shutil.copytree(assets, folder)
        for path in examples.glob("*.py") if subject.origin == "examples" else [HERE / "scripts" / subject.script]:
            (folder / path.name).write_text(_current(path.read_text(encoding="utf-8")), encoding="utf-8")
        command = ["audit", "--budget", budget, "--json", "report.json", subject.script, *subject.arguments]
        started = time.monotonic()
        error = ""
        try:
            process = subprocess.run(
                [sys.executable, "-m", "touchstone", *command],
                cwd=folder,
                env=environment(Path(temporary)),
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
            if not (folder / "report.json").exists():
                error = (process.stderr.strip().splitlines() or ["no output"])[-1]
        except subprocess.TimeoutExpired:
            error = f"it had not ended after {TIMEOUT} s"
        report = None
        if not error:
            text = (folder / "report.json").read_text(encoding="utf-8")
            report = json.loads(text.replace(f"{folder.resolve()}/", "").replace(f"{ROOT}/", ""))
    return {
        "id": subject.id,
        "command": " ".join(["touchstone", "audit", subject.script, *subject.arguments]),
        "versions": versions(subject.packages),
        "seconds": round(time.monotonic() - started),
        "error": error.replace(f"{folder}/", ""),
        "report": report,
    }


def _current(text: str) -> str:
    """Change what no current version has: telemetry, a check of the network, an old loop; and NLTK's data on disk."""
    for old, new in (
        (r"^ *send_example_telemetry\(.*\n", ""),
        (r"(, is_offline_mode)?, send_example_telemetry$", ""),
        (r"self\.prediction_loop if .* else self\.evaluation_loop", "self.evaluation_loop"),
        (r"if is_offline_mode\(\):", "if False:"),
        (r"nltk\.download\(.*\)", "pass"),
        (r"nltk\.sent_tokenize\((\w+)\)", r"\1.split('. ')"),
    ):
        text = re.sub(old, new, text, flags=re.MULTILINE)
    return text


def reproduce(path: Path) -> dict[str, str]:
    """Run a reproduction and return its output."""
    with tempfile.TemporaryDirectory() as temporary:
        process = subprocess.run(
            [sys.executable, str(path)],
            cwd=temporary,
            env=environment(Path(temporary)),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
    # The Trainer prints its own lines, which are dicts.
    lines = [line for line in process.stdout.splitlines() if not line.startswith("{")]
    return {"id": path.stem, "output": "\n".join(lines).strip()}


def environment(folder: Path) -> dict[str, str]:
    """Return an environment without a network, with its own caches, that finds this clone."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "cache"),
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "disabled",
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each package."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
