"""The list of probes in docs/audit.md, made from the table of probes.

    python -m touchstone.auditing.catalogue

writes it between the marks in the page.
"""

from __future__ import annotations

import re
from pathlib import Path

from touchstone.auditing.probe import Probe, load_probes
from touchstone.auditing.subject import TASKS

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"
MARKS = "<!-- probes -->", "<!-- end of probes -->"


def page(text: str) -> str:
    """Return the page with the list of probes written anew."""
    start, end = map(re.escape, MARKS)
    listed = "\n\n".join([MARKS[0], *_groups(), MARKS[1]])
    return re.sub(f"{start}.*{end}", lambda _: listed, text, flags=re.DOTALL)


def _groups() -> list[str]:
    groups: dict[str, list[Probe]] = {}
    for each in load_probes().values():
        groups.setdefault(each.group, []).append(each)
    return ["\n".join([f"### {_title(group)}", "", *_table(probes)]) for group, probes in groups.items()]


def _title(group: str) -> str:
    return group[:1].upper() + group[1:]


def _table(probes: list[Probe]) -> list[str]:
    lines = ["| probe | what holds when it passes | budget | tasks |", "| --- | --- | --- | --- |"]
    for each in probes:
        tasks = "all" if set(TASKS) <= set(each.tasks) else ", ".join(each.tasks)
        lines.append(f"| `{each.id}` | {each.says} | {each.budget} | {tasks} |")
    return lines


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"docs/{PAGE.name}: {len(load_probes())} probes")


if __name__ == "__main__":
    main()
