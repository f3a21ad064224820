"""Audit every script of the zoo and keep a record of what was found."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from tests.zoo.fault import Fault, all_faults, clean_scripts
from tests.zoo.run import audit_text, make_assets

RECORD = Path(__file__).parent / "matrix.json"
STYLES = (
    ("Seq2SeqTrainer", r"\bSeq2SeqTrainer\("),
    ("Trainer subclass", r"^class \w+\((\w+\.)?(Seq2Seq)?Trainer\)"),
    ("Trainer", r"\bTrainer\("),
    ("Accelerate loop", r"\bAccelerator\("),
    ("plain loop", ""),
)


def style_of(text: str) -> str:
    """Return how a script trains, such as `Trainer` or `plain loop`."""
    return next(style for style, pattern in STYLES if re.search(pattern, text, re.MULTILINE))


def failed_probes(report: dict[str, Any]) -> dict[str, str]:
    """Return the message and cause of each failed probe by id."""
    return probes_with("fail", report)


def probes_with(outcome: str, report: dict[str, Any]) -> dict[str, str]:
    """Return the message and cause of each probe with an outcome by id."""
    return {
        each["probe"]: f"{each['message']} {each['cause']}"
        for each in report.get("findings", ())
        if each["outcome"] == outcome
    }


def entry_of_fault(fault: Fault, report: dict[str, Any]) -> dict[str, Any]:
    """Return what the record keeps of the audit of a faulty script."""
    failed, warned = failed_probes(report), probes_with("warn", report)
    wanted = [failed.get(each) for each in fault.probes] + [warned.get(each) for each in fault.warns]
    expected = [text for text in wanted if text is not None]
    named = len(expected) == len(wanted) and all(re.search(fault.cause, text) for text in expected)
    return {**_entry(report), "style": style_of(fault.text()), "cause_named": bool(expected) and named}


def entry_of_clean(script: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Return what the record keeps of the audit of a clean script."""
    return {**_entry(report), "style": style_of(script.read_text(encoding="utf-8"))}


def _entry(report: dict[str, Any]) -> dict[str, Any]:
    findings = report.get("findings", ())
    outcomes = {
        outcome: sorted(each["probe"] for each in findings if each["outcome"] == outcome)
        for outcome in ("fail", "warn")
    }
    counts = {outcome: sum(each["outcome"] == outcome for each in findings) for outcome in ("pass", "not-checked")}
    entry = {"task": report.get("task", ""), **outcomes, **counts, "seconds": round(report["seconds"], 1)}
    if "error" in report:
        entry["error"] = next((line for line in reversed(report["error"].splitlines()) if "Error" in line), "no report")
    return entry


def run_all(
    jobs: int, progress: Callable[[str, int], None], *, only: str = "", record: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Audit all scripts whose name has a text, `jobs` at a time, and return the record.

    Args:
        jobs: scripts at a time.
        progress: called with a line on each script and the number of scripts.
        only: a part of the names of the scripts; nothing is written if it is given.
        record: a record of an earlier run: only what it lacks is run.
    """
    from importlib.metadata import version

    record = record or {"faults": {}, "clean": {}}
    record["versions"] = {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")}
    clean = [each for each in clean_scripts() if only in each.stem and each.stem not in record["clean"]]
    faults = [each for each in all_faults() if only in each.id and each.id not in record["faults"]]
    lock = Lock()

    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(jobs) as pool:
        assets = make_assets(Path(temporary) / "assets")

        def done(kind: str, name: str, entry: dict[str, Any], said: str) -> None:
            with lock:
                progress(f"{name}: {said}, {entry['seconds']:.1f} s", len(clean) + len(faults))
                record[kind][name] = entry
                if not only:
                    save(record)

        def run_clean(script: Path) -> None:
            entry = entry_of_clean(script, audit_text(script.read_text(encoding="utf-8"), assets))
            alarms = "FALSE ALARM " + ", ".join(entry["fail"]) if entry["fail"] else entry.get("error", "clean")
            done("clean", script.stem, entry, alarms)

        def run_fault(fault: Fault) -> None:
            entry = entry_of_fault(fault, audit_text(fault.text(), assets, budget=fault.budget))
            found = ", ".join(entry["fail"]) or entry.get("error") or "nothing found"
            expected = (
                "" if entry["cause_named"] else f" (expected {', '.join((*fault.probes, *fault.warns)) or 'no fail'})"
            )
            done("faults", fault.id, entry, found + expected)

        runs = [pool.submit(run_clean, each) for each in clean] + [pool.submit(run_fault, each) for each in faults]
        for each in runs:
            each.result()
    return record


def save(record: dict[str, Any], path: Path = RECORD) -> None:
    """Write the record, one entry a line, so that changes are easy to read."""
    parts = [f' "versions": {json.dumps(record["versions"])}']
    for kind in ("faults", "clean"):
        entries = sorted(record[kind].items())
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries)
        parts.append(f' "{kind}": {{\n{lines}\n }}')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def load(path: Path = RECORD) -> dict[str, Any]:
    """Return the record of the last run."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record
