"""The matrix of checks by implementations as a terminal table, as Markdown and as one HTML page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from touchstone.contract import SECTIONS
from touchstone.properties.check import ids
from touchstone.properties.conformance import Examined, Found
from touchstone.properties.failure import KINDS

if TYPE_CHECKING:
    from rich.table import Table

SIGNS = {
    "holds": "✓",
    "result": "✗",
    "refusal": "r",
    "form": "f",
    "known": "k",
    "undecided": "?",
    "skipped": "?",
    "not offered": "",
}
LEGEND = (
    ("✗", "a result is wrong"),
    ("k", "a wrong result that is known"),
    ("r", "invalid input is not refused"),
    ("f", "side effects, shared memory, or dependence on argument types"),
    ("✓", "holds"),
    ("?", "could not be judged"),
    ("", "not offered"),
)
LONGEST = 400
"""Characters of a line of an example in Markdown."""

HEADINGS = {"result": "Wrong results", "refusal": "Not refused", "form": "Form"}


@dataclass(frozen=True)
class Row:
    """One check, and its cell in each implementation: a key of `SIGNS`."""

    id: str
    rule: str
    cells: tuple[str, ...]


def rows(examined: Sequence[Examined]) -> list[Row]:
    """Return the checks that fail somewhere, in the contract's order."""
    found = []
    for id in ids():
        failures = [failure for each in examined for failure in each.failures(id)]
        if failures:
            failures.sort(key=lambda failure: KINDS.index(failure.outcome.kind))
            found.append(Row(id, failures[0].sentence, tuple(cell(each, id) for each in examined)))
    return found


def cell(examined: Examined, id: str) -> str:
    """Return what an implementation shows in the row of a check: the most important of its tests' outcomes."""
    own = [each.outcome for each in examined.found if each.outcome.id == id]
    failing = [each for each in own if each.status == "fails"]
    for kind in KINDS:
        if any(each.kind == kind and not each.known for each in failing):
            return kind
    if failing:
        return "known"
    return next(
        (status for status in ("undecided", "skipped", "not offered") if any(o.status == status for o in own)), "holds"
    )


def first_of_each(found: Sequence[Found]) -> list[Found]:
    """Return the first failing test of each check."""
    return list({each.outcome.id: each for each in reversed(found)}.values())[::-1]


def matrix(examined: Sequence[Examined]) -> Table:
    """Return the checks that fail somewhere as a table for the terminal. Columns are numbered as on the lines above."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("check")
    for number, _ in enumerate(examined, start=1):
        table.add_column(str(number), justify="center")
    table.add_column("rule", overflow="ellipsis", no_wrap=True)
    styles = {"result": "bold red", "refusal": "yellow", "form": "yellow", "known": "magenta", "holds": "green"}
    for row in rows(examined):
        cells = [f"[{styles.get(each, 'dim')}]{SIGNS[each]}[/]" for each in row.cells]
        table.add_row(row.id, *cells, row.rule)
    table.caption = "   ".join(f"{sign} {says}" for sign, says in LEGEND if sign)
    return table


def markdown(examined: Sequence[Examined]) -> str:
    """Return the matrix and, for each implementation, the smallest example of each wrong result."""
    lines = ["| # | implementation | functions | checks run | wrong results | not refused | form |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for number, each in enumerate(examined, start=1):
        counts = [_ids(each, kind) for kind in KINDS]
        ran = each.problem or f"{len(each.summary.ran)} of {len(ids())}"
        lines.append(f"| {number} | `{each.name}` | {len(each.functions)} | {ran} | {' | '.join(counts)} |")
    legend = "; ".join(f"{sign or '(empty)'} {says}" for sign, says in LEGEND)
    lines += ["", _wrapped(f"{legend}."), ""]
    lines += [f"| check | {' | '.join(str(n) for n, _ in enumerate(examined, start=1))} | rule |"]
    lines += ["| --- |" + " :-: |" * len(examined) + " --- |"]
    for row in rows(examined):
        lines.append(f"| {row.id} | {' | '.join(SIGNS[each] for each in row.cells)} | {row.rule} |")
    for number, each in enumerate(examined, start=1):
        lines += ["", f"## {number}. `{each.name}`", ""]
        lines += map(_wrapped, _about(each))
        for found in first_of_each(each.failures(kind="result")):
            known = f" Known: {found.outcome.known}." if found.outcome.known else ""
            lines += ["", _wrapped(f"**{found.outcome.id}**: {found.sentence}.{known}")]
            lines += ["", *(f"    {_cut(line)}".rstrip() for line in _example(found))]
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def _cut(line: str) -> str:
    """Return a line of an example, without its middle if it is too long for a page."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 60]} ... ({len(line)} characters; --json has all)"


def html(examined: Sequence[Examined]) -> str:
    """Return the matrix as one self-contained page, which loads nothing and runs nothing."""
    details = [
        (each, _about(each), [(HEADINGS[kind], first_of_each(each.failures(kind=kind))) for kind in KINDS])
        for each in examined
    ]
    page = _template().render(
        examined=examined,
        rows=rows(examined),
        signs=SIGNS,
        legend=LEGEND,
        details=details,
        counts=[[_ids(each, kind) for kind in KINDS] for each in examined],
        total=len(ids()),
        sections=SECTIONS,
    )
    return str(page)


def _ids(examined: Examined, kind: Any) -> str:
    return ", ".join(examined.summary.ids("fails", kind=kind)) or "none"


def _about(examined: Examined) -> list[str]:
    if examined.problem:
        return [f"Not examined: {examined.problem}"]
    parts = [f"Offers {', '.join(f'`{name}`' for name in examined.functions)}."]
    parts += [f"`{name}`: {part}." for name, part in (examined.parts or {}).items()]
    if examined.choices:
        parts.append(f"Declares {', '.join(f'{name} {value}' for name, value in examined.choices.items())}.")
    if not examined.failures(kind="result"):
        parts.append("No result is wrong.")
    return [" ".join(parts)]


def _example(found: Found) -> list[str]:
    """Return the report of a failure without its title and its last line, which names the rule."""
    return "\n".join(found.report.splitlines()[1:-1]).strip("\n").splitlines()


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["example"] = lambda found: "\n".join(_example(found))
    return environment.from_string(Path(__file__).with_name("conformance.html.j2").read_text(encoding="utf-8"))
