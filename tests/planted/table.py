"""The planted bugs as a page of the documentation and as a table on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tests.planted.bug import BUGS, Bug, link
from tests.planted.killing import FIRST_LOOK, fails
from touchstone.properties.check import all_checks

PAGE = Path(__file__).parents[2] / "docs" / "planted-bugs.md"

HEAD = """# Planted bugs

What shows that the checks of [the contract](contract.md) have teeth: {bugs} implementations with one bug each, {seen}
of them seen in the wild. `tests/test_planted.py` runs every bug against the checks named here on 20 seeds, and each
must catch it on each; the reference and an independently written second implementation pass all checks on the same
seeds. No check is without a bug that it catches.

To watch one being caught:

    pytest suite/properties --implementation tests.planted.alignment:b_copied_to_later_tokens

This page is written by `python -m tests.planted`, which also prints which of all checks catch which bug. Links lead to
where a bug was seen or discussed; the course's lines are those of its commit 16af5667. Where there is none, the bug was
thought up.
"""


def page() -> str:
    """docs/planted-bugs.md, the same in every run."""
    lines = [HEAD.format(bugs=len(BUGS), seen=sum(bool(bug.evidence) for bug in BUGS))]
    for module in dict.fromkeys(bug.module for bug in BUGS):
        lines += [f"## {module.rpartition('.')[2].capitalize()}", ""]
        lines += ["| bug | what is wrong | seen in | caught by |", "| --- | --- | --- | --- |"]
        lines += [row(bug) for bug in BUGS if bug.module == module]
        lines.append("")
    return "\n".join(lines)


def row(bug: Bug) -> str:
    says = bug.says.replace("|", "\\|")
    evidence = ", ".join(map(link, bug.evidence))
    return f"| `{bug.name}` | {says} | {evidence} | {', '.join(bug.caught_by)} |"


def marks(bug: Bug, ids: tuple[str, ...], *, seed: int) -> dict[str, str]:
    """Check id to a mark: `*` named and catches, `+` catches too, `!` named and does not catch at the first look."""
    caught = {
        check.id for check in all_checks() if check.id in ids and fails(check, bug, seed=seed, max_examples=FIRST_LOOK)
    }
    return {id: ("*" if id in caught else "!") if id in bug.caught_by else "+" if id in caught else "" for id in ids}


def matrix(module: str, *, seed: int) -> Table:
    """Bugs of one module against the checks of its stages."""
    bugs = [bug for bug in BUGS if bug.module == module]
    stages = {bug.stage for bug in bugs}
    ids = tuple(dict.fromkeys(check.id for check in all_checks() if stages & set(check.needs)))
    title = f"{module.rpartition('.')[2]}: {len(bugs)} bugs"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)
    table.add_column("bug", no_wrap=True)
    for id in ids:
        table.add_column(id, no_wrap=True, justify="center")
    for bug in bugs:
        table.add_row(bug.name, *marks(bug, ids, seed=seed).values())
    return table
