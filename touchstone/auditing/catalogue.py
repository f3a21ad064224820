"""The pages about probes, made from the table of probes and their docstrings.

    python -m touchstone.auditing.catalogue

writes the list in docs/audit.md, between its marks, and the whole of docs/probes.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill

from touchstone.auditing.explain import explained, looks
from touchstone.auditing.probe import Probe, load_probes
from touchstone.auditing.reporting.page import parts
from touchstone.auditing.subject import TASKS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "audit.md"
PROBES_PAGE = DOCS / "probes.md"
MARKS = "<!-- probes -->", "<!-- end of probes -->"
SHOWN = 3
"""Faulty scripts that are named for each probe."""
INTRODUCTION = """\
# Probes

What each probe of [the audit](audit.md) means, what usually causes its findings, and what to do. `touchstone audit
--explain ID` prints the same text, and the HTML report unfolds it under each finding.

This page is written by `python -m touchstone.auditing.catalogue` from the docstrings in
[touchstone/auditing/probes](../touchstone/auditing/probes). *In the zoo* names scripts of [the bug zoo](zoo.md) that
have the fault; `python -m tests.zoo show NAME` prints one.
"""


def page(text: str) -> str:
    """Return docs/audit.md with the list of probes written anew."""
    start, end = map(re.escape, MARKS)
    tables = ["\n".join([f"### {_title(group)}", "", *_table(probes)]) for group, probes in _groups().items()]
    listed = "\n\n".join([MARKS[0], *tables, MARKS[1]])
    return re.sub(f"{start}.*{end}", lambda _: listed, text, flags=re.DOTALL)


def probes_page() -> str:
    """Return docs/probes.md."""
    examples = _examples()
    blocks = [INTRODUCTION.rstrip()]
    for group, probes in _groups().items():
        blocks.append(f"## {_title(group)}")
        for each in probes:
            blocks += _entry(each, examples.get(each.id, []))
    return "\n\n".join(blocks) + "\n"


def _groups() -> dict[str, list[Probe]]:
    groups: dict[str, list[Probe]] = {}
    for each in load_probes().values():
        groups.setdefault(each.group, []).append(each)
    return groups


def _title(group: str) -> str:
    return group[:1].upper() + group[1:]


def _table(probes: list[Probe]) -> list[str]:
    lines = ["| probe | what holds when it passes | budget | tasks |", "| --- | --- | --- | --- |"]
    for each in probes:
        tasks = "all" if set(TASKS) <= set(each.tasks) else ", ".join(each.tasks)
        lines.append(f"| [`{each.id}`](probes.md#{each.id}) | {each.says} | {each.budget} | {tasks} |")
    return lines


def _entry(probe: Probe, examples: list[str]) -> Iterator[str]:
    yield f"### {probe.id}"
    ways = [looks(probe), *([f"In an observed loop: {looks(probe.in_loops)}"] if probe.in_loops else [])]
    yield _wrapped(f"*{probe.says}*")
    for heading, text in explained(probe).items():
        yield _wrapped(f"**{heading}:** {_linked(text)}")
    yield _wrapped(f"**How it looks:** {' '.join(ways)}")
    if examples:
        yield "\n".join(["**In the zoo:**", "", *examples[:SHOWN]])


def _linked(text: str) -> str:
    return "".join(f"[{part}]({link})" if link else part for part, link in parts(text))


def _wrapped(text: str) -> str:
    return fill(text, 118, break_long_words=False, break_on_hyphens=False)


def _examples() -> dict[str, list[str]]:
    """Return the faulty scripts that each probe finds, those that were seen in the wild first."""
    from tests.zoo.fault import all_faults  # the pages belong to the repository, as the zoo does
    from tests.zoo.page import link

    found: dict[str, list[str]] = {}
    for fault in sorted(all_faults(), key=lambda fault: not fault.seen):
        for probe in fault.probes:
            line = fill(
                f"* `{fault.id}`: {fault.says} {link(fault.seen)}".rstrip(),
                118,
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            found.setdefault(probe, []).append(line)
    return found


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    PROBES_PAGE.write_text(probes_page(), encoding="utf-8")
    print(f"docs/{PAGE.name}, docs/{PROBES_PAGE.name}: {len(load_probes())} probes")


if __name__ == "__main__":
    main()
