"""Write docs/zoo.md from the record of a run."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median
from typing import Any

from tests.zoo.fault import CLEAN, Fault, all_faults

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"
INTRODUCTION = """\
# The bug zoo

Training scripts as people write them, on tiny models and small data. Each faulty script has one fault; it is made by a
small edit of a clean script. `touchstone audit` runs every script unmodified. A fault counts as found if a probe fails.
Where a script does not prove that it is meant otherwise, as with left padding, a warning is all that is justified; the
table says so. The cause is named if all the probes the fault was written for say it. A clean script on which any probe
fails is a false alarm.

This page is written by `python -m tests.zoo`. `python -m tests.zoo show FAULT` prints a faulty script, and
`python -m tests.zoo run NAME` audits a faulty or a clean one and prints the report. [peers.md](peers.md) shows what
other tools say about the same scripts.
"""


def page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    faults = {fault.id: fault for fault in all_faults()}
    parts = [INTRODUCTION, _totals(record), _faults(record, faults), _clean(record), _needless(faults)]
    return "\n".join(part for part in parts if part)


def totals(record: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers at the head of the page."""
    faults, clean = list(record["faults"].values()), list(record["clean"].values())
    seconds = [each["seconds"] for each in faults + clean]
    return {
        "faults": len(faults),
        "found": sum(bool(each["fail"]) for each in faults),
        "explained": sum(bool(each["fail"]) and each["cause_named"] for each in faults),
        "warned": sum(not each["fail"] and each["cause_named"] for each in faults),
        "clean": len(clean),
        "judged": sum("error" not in each for each in clean),
        "alarms": sum(bool(each["fail"]) for each in clean),
        "median": median(seconds) if seconds else 0.0,
        "max": max(seconds, default=0.0),
    }


def _totals(record: dict[str, Any]) -> str:
    numbers = totals(record)
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    rows = [
        ("faulty scripts", numbers["faults"]),
        ("found", numbers["found"]),
        ("found, and the cause named", numbers["explained"]),
        ("only warned of, and the cause named", numbers["warned"]),
        ("clean scripts", numbers["clean"]),
        ("clean scripts that could be judged", numbers["judged"]),
        ("clean scripts with a false alarm", numbers["alarms"]),
        ("seconds a script, median and longest", f"{_seconds(numbers['median'])} and {_seconds(numbers['max'])}"),
    ]
    return (
        table(("", ""), rows)
        + f"\nWith {versions}.\nSeconds are those of the script up to its training and of the audit, in a process that "
        "has the libraries\nimported, with one thread.\n"
    )


def _faults(record: dict[str, Any], faults: dict[str, Fault]) -> str:
    rows = []
    for name, entry in record["faults"].items():
        fault = faults.get(name)
        says = fault.says if fault else ""
        seen = fault.seen if fault else ""
        twin = record["clean"].get(fault.script, {}) if fault else {}
        warned = [each for each in entry["warn"] if each not in twin.get("warn", ())]
        missed = "not found" + "".join(f"; `{each}` warns" for each in warned)
        if fault and set(fault.warns) & set(warned):
            missed = ", ".join(f"`{each}` warns" for each in fault.warns if each in warned)
        found = ", ".join(f"`{each}`" for each in entry["fail"]) or entry.get("error") or missed
        rows.append(
            (
                f"`{name}`",
                entry["task"],
                entry["style"],
                f"{says} {link(seen)}".strip(),
                found,
                "yes" if entry["cause_named"] else "no",
                _seconds(entry["seconds"]),
            )
        )
    heads = ("fault", "task", "style", "what is wrong", "found by", "cause named", "s")
    return "## Faulty scripts\n\n" + table(heads, rows)


def _clean(record: dict[str, Any]) -> str:
    rows = []
    for name, entry in record["clean"].items():
        alarms = ", ".join(f"`{each}`" for each in entry["fail"]) or entry.get("error") or "none"
        counts = (entry["pass"], len(entry["warn"]), entry["not-checked"])
        rows.append(
            (f"`{name}`", entry["task"], entry["style"], _first_line(name), *counts, alarms, _seconds(entry["seconds"]))
        )
    heads = ("script", "task", "style", "what it is", "pass", "warn", "not checked", "false alarms", "s")
    return "## Clean scripts\n\n" + table(heads, rows)


def _needless(faults: dict[str, Fault]) -> str:
    """Return the probes that no fault needs, or nothing."""
    names = needless_probes(list(faults.values()))
    if not names:
        return ""
    return "## Probes that no faulty script needs\n\n" + "\n".join(f"* `{name}`" for name in names) + "\n"


def needless_probes(faults: list[Fault]) -> list[str]:
    """Return the ids of the probes that no fault names."""
    from touchstone.auditing.probe import load_probes

    needed = {probe for fault in faults for probe in (*fault.probes, *fault.warns)}
    return [each for each in load_probes() if each not in needed]


def _first_line(name: str) -> str:
    path = CLEAN / f"{name}.py"
    found = re.search(r'"""(.*?)(?:"""|\n\n|$)', path.read_text(encoding="utf-8"), re.DOTALL) if path.exists() else None
    return " ".join(found[1].split()) if found else ""


def link(url: str) -> str:
    """Return a link with a short text, such as `transformers#47688`."""
    if not url:
        return ""
    found = re.search(r"github\.com/[\w.-]+/([\w.-]+)/(?:issues|pull|discussions)/(\d+)", url)
    return f"([{found[1]}#{found[2]}]({url}))" if found else f"([seen]({url}))"


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 1 else "<1"


def table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
