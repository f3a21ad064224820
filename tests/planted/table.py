"""Write the planted bugs as a page of the documentation and as a table on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tests.planted.bug import BUGS, Bug, link
from tests.planted.killing import FIRST_LOOK, fails
from touchstone.properties.check import all_checks

PAGE = Path(__file__).parents[2] / "docs" / "planted-bugs.md"

HEAD = """# Planted bugs

{bugs} implementations with one bug each test that the checks of [the contract](contract.md) catch bugs. {seen} of the
bugs were seen in real code. `tests/properties/test_planted.py` runs each bug against the checks named here on 20 seeds:
every check must catch it on every seed. The reference and an independently written second implementation pass all
checks on the same seeds. Every check catches at least one bug.

To see a bug being caught:

    pytest suite/properties --implementation tests.planted.alignment:b_copied_to_later_tokens

`python -m tests.planted` writes this page and prints which checks catch which bugs. Links lead to where a bug was seen
or discussed. Lines of the course are those of its commit 16af5667. A bug without a link is made up.
"""


def page() -> str:
    """Return the text of docs/planted-bugs.md. It is the same in every run."""
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
    """Map each check id to a mark: `*` named and catches, `+` also catches, `!` named but misses at first."""
    caught = {
        check.id for check in all_checks() if check.id in ids and fails(check, bug, seed=seed, max_examples=FIRST_LOOK)
    }
    return {id: ("*" if id in caught else "!") if id in bug.caught_by else "+" if id in caught else "" for id in ids}


def matrix(module: str, *, seed: int) -> Table:
    """Return a table of the bugs of one module and the checks of its stages."""
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
