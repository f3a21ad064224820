"""Write docs/findings.md from record.json."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.findings.properties import FAULTS
from tools.findings.subjects import SUBJECTS
from touchstone.auditing.probe import INTERNAL, load_probes

HERE = Path(__file__).parent
SEVERITIES = {"fail": "fault", "warn": "warning"}
ORIGINS = {
    "course": "The course, chapter 7. Scripts that do what its sections do, on small data, without TensorFlow and "
    "uploads; names that current versions have removed are replaced.",
    "examples": "transformers' example scripts as of version 4.56, as they are, but for what transformers 5 has "
    "removed (telemetry, a check of the network, an old loop) and NLTK's data.",
    "libraries": "Trainers of other libraries, as installed from PyPI, called as their documentation calls them.",
}
THREAD = re.compile(r"(?<![\w/\[])(transformers|accelerate|datasets|evaluate|course)#(\d+)")


@dataclass(frozen=True)
class About:
    """What the page adds to a probe's findings.

    Args:
        title: the heading.
        reproduction: the file in `reproductions/` that shows it, without `.py`.
        thread: the upstream thread, where the finding does not name it.
    """

    title: str
    reproduction: str = ""
    thread: str = ""


ABOUT = {
    "accumulation-divided": About("Gradients are multiplied by the accumulation steps", "accumulation"),
    "loss-is-the-mean-over-labels": About(
        "GPT-2's loss is divided by one label too many in each row", "gpt2_denominator", "transformers#46204"
    ),
    "evaluation-loss-by-token": About("The evaluation loss is no mean over tokens", "evaluation_loss"),
    "same-seed-same-order": About("The order of rows grouped by length is not given by the seed", "grouped_order"),
    "spans-are-in-order": About("An answer in the window's last token begins behind its end", "last_token"),
    "metric-arguments-in-order": About("Precision and recall are exchanged", thread="course#641"),
    "evaluation-masks-same": About("Each evaluation masks other tokens"),
    "evaluation-twice-equal": About("Two evaluations of one model differ"),
    "schedule-fits-the-run": About("The schedule does not fit the run"),
    "chunking-loses-nothing": About("Tokens are lost where texts are cut"),
    "little-padding": About("Batches are mostly padding"),
    "micro-batches-weighted-by-labels": About("Tokens of small micro-batches count more"),
    "no-negative-id-decoded": About("The decoder would get -100"),
    "collator-keeps-its-rows": About("The collator changes its rows"),
    "documents-separated": About("Nothing marks where a document ends"),
    "metric-independent-of-batches": About("The metric depends on the batch size"),
    "evaluation-runs": About("The evaluation fails"),
    "ignored-positions-not-scored": About("Positions without a label would be scored"),
}
HEAD = """\
# Findings in real code

What `touchstone audit` finds in training code that people use: the course's chapter 7, transformers' example scripts,
and three other libraries. Written by `python -m tools.findings page > docs/findings.md` from
[the record](../tools/findings/record.json) of a run on {date} with Python {python} and the budget `{budget}`.

All subjects ran offline on two CPU cores, on the bug zoo's data (200 training rows for a task) and its models (two
layers, random weights). Figures such as losses are those of these models. Ratios hold for every model of the class.

A *fault* is proved under the convention that the code itself shows. A *warning* is a suspicion, or a known effect with
its size. {counts}
"""
NOT_RUN = """\
* The course's TensorFlow code and its uploads to the hub.
* NLTK's punkt, which is downloaded by name: sentences are split at full stops instead.
* Pretrained models and the course's data sets, which need a network.
* More than one process, CUDA, and mixed precision.
* The schedule of section 7.6's loop, which is planned for eight times the steps that the run takes: the audit saw one
  optimizer step of that loop, and does not judge a schedule by one.
* Other budgets: `--budget deep` adds short trainings and stopped and resumed runs.
"""


def page(record: dict[str, Any] | None = None) -> str:
    """Return the page. The record is that of record.json, if none is given."""
    record = record or json.loads((HERE / "record.json").read_text(encoding="utf-8"))
    groups = grouped(record)
    found = [outcome for (outcome, _), places in groups.items() for _ in places]
    judged = sum(each["report"] is not None for each in record["subjects"])
    counts = (
        f"{judged} of {len(record['subjects'])} subjects could be judged: {found.count('fail')} faults and "
        f"{found.count('warn')} warnings, of {len(groups)} kinds."
    )
    head = HEAD.format(date=record["date"], python=record["python"], budget=record["budget"], counts=counts)
    parts = ["\n\n".join(_wrapped(part) if not part.startswith("#") else part for part in head.strip().split("\n\n"))]
    parts += ["## Summary", _summary(groups)]
    for outcome, name in SEVERITIES.items():
        parts.append(f"## {name.capitalize()}s")
        parts += [part for key, places in groups.items() if key[0] == outcome for part in _finding(key, places, record)]
    parts += ["## Found by the properties", *_properties()]
    parts += ["## What was run", *_runs(record), "## What was not run", NOT_RUN.strip(), *_failed(record)]
    return "\n\n".join(parts) + "\n"


Groups = dict[tuple[str, str], list[tuple[str, dict[str, Any]]]]


def grouped(record: dict[str, Any]) -> Groups:
    """Return the findings with their subject, by outcome and probe: faults first, then what most subjects have."""
    groups: Groups = {}
    for subject in record["subjects"]:
        for finding in (subject["report"] or {"findings": []})["findings"]:
            if finding["outcome"] in SEVERITIES:
                groups.setdefault((finding["outcome"], finding["probe"]), []).append((subject["id"], finding))
    severities = list(SEVERITIES)
    return dict(sorted(groups.items(), key=lambda item: (severities.index(item[0][0]), -len(item[1]), item[0][1])))


def _summary(groups: Groups) -> str:
    rows = []
    for (outcome, probe), places in groups.items():
        title = _title(probe)
        rows.append(
            (SEVERITIES[outcome], f"[{title}](#{_anchor(title)})", len(places), ", ".join(_threads(probe, places)))
        )
    return _table(("", "finding", "subjects", "thread"), rows)


def _title(probe: str) -> str:
    if probe in ABOUT:
        return ABOUT[probe].title
    return f"Not so: {load_probes()[probe].says.rstrip('.')}" if probe in load_probes() else probe


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _threads(probe: str, places: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    texts = [f"{finding['message']} {finding['cause']}" for _, finding in places]
    texts.append(ABOUT[probe].thread if probe in ABOUT else "")
    found = sorted({f"{name}#{number}" for text in texts for name, number in THREAD.findall(text)})
    return [THREAD.sub(r"[\1#\2](https://github.com/huggingface/\1/issues/\2)", each) for each in found]


def _finding(key: tuple[str, str], places: list[tuple[str, dict[str, Any]]], record: dict[str, Any]) -> Iterator[str]:
    probe = key[1]
    about = ABOUT.get(probe, About(""))
    table = load_probes()
    yield f"### {_title(probe)}"
    says = f" What should hold: {table[probe].says}" if probe in table else ""
    yield _wrapped(f"Probe `{probe}`.{says}")
    yield _table(("subject", "seen"), [(subject, finding["message"]) for subject, finding in places])
    causes: dict[str, str] = {}
    for subject, finding in places:
        causes.setdefault(
            re.sub(r"\d[\d.,]*|\([^()]*\.py:\d+\)|\b[A-Z]\w+(?:For|MT|LM)\w+", "", finding["cause"]), subject
        )
    for subject in causes.values():
        finding = dict(places)[subject]
        if finding["cause"]:
            cause = finding["cause"][0].upper() + finding["cause"][1:]
            which = f"In {subject}: " if len(causes) > 1 else "Cause: "
            yield _wrapped(which + cause.rstrip(".") + ".")
    threads = _threads(probe, places)
    if threads:
        yield "\n".join(["Upstream:", *(f"* {each}" for each in threads)])
    if about.reproduction:
        yield from _reproduction(about.reproduction, record)


def _reproduction(name: str, record: dict[str, Any]) -> Iterator[str]:
    output = next((each["output"] for each in record["reproductions"] if each["id"] == name), None)
    if output is None:
        return
    text = (HERE / "reproductions" / f"{name}.py").read_text(encoding="utf-8").strip()
    yield f"Without Touchstone ([{name}.py](../tools/findings/reproductions/{name}.py)):"
    yield textwrap.indent(text, "    ")
    yield "It prints:"
    yield textwrap.indent(output, "    ")


def _properties() -> Iterator[str]:
    yield _wrapped(
        "What the checks of [the contract](contract.md) find in the same code, and in metrics from PyPI. The code is "
        "asked only for what it is meant for. [Conformance](conformance.md) has all implementations and all checks. "
        "Functions of the course and of the scripts are written anew in "
        "[suite/implementations](../suite/implementations)."
    )
    for fault in FAULTS:
        thread = f" Upstream: {fault.thread}." if fault.thread else ""
        yield f"### {fault.code}"
        yield _wrapped(f"{fault.says} It fails {fault.checks}.{thread}")
        yield textwrap.indent(f"{fault.line}\n# prints {fault.prints}; right is {fault.right}", "    ")


def _runs(record: dict[str, Any]) -> Iterator[str]:
    by_id = {each["id"]: each for each in record["subjects"]}
    for origin, text in ORIGINS.items():
        yield _wrapped(text)
        rows: list[tuple[Any, ...]] = []
        used: dict[str, str] = {}
        for subject in SUBJECTS:
            run = by_id.get(subject.id)
            if subject.origin != origin or run is None:
                continue
            used.update(run["versions"])
            if run["report"] is None:
                rows.append((subject.id, subject.title, "not judged", "", "", subject.note))
                continue
            findings = run["report"]["findings"]
            outcomes = [finding["outcome"] for finding in findings]
            ran = f"{run['report']['ran']} of {run['report']['of']}"
            rows.append((subject.id, subject.title, ran, outcomes.count("fail"), outcomes.count("warn"), subject.note))
        yield _table(("subject", "what it trains", "probes", "faults", "warnings", "differs from its original"), rows)
        yield _wrapped("Versions: " + ", ".join(f"{name} {number}" for name, number in used.items()) + ".")
    commands = [each["command"] for each in record["subjects"]]
    yield "Commands, in a folder with the data, the scripts and evaluate's metrics:"
    yield textwrap.indent("\n".join(commands), "    ")


def _failed(record: dict[str, Any]) -> Iterator[str]:
    errors = [(each["id"], each["error"]) for each in record["subjects"] if each["error"]]
    internal = [
        (each["id"], f"`{finding['probe']}`: {finding['message']}")
        for each in record["subjects"]
        for finding in (each["report"] or {"findings": []})["findings"]
        if INTERNAL in finding["message"]
    ]
    if errors or internal:
        yield "What the audit itself could not do:"
        yield _table(("subject", "reason"), [*errors, *internal])


def _table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _wrapped(text: str) -> str:
    linked = THREAD.sub(r"[\1#\2](https://github.com/huggingface/\1/issues/\2)", text)
    return textwrap.fill(linked, 118, break_long_words=False, break_on_hyphens=False)
