"""The report as one self-contained HTML page, and as a fragment for notebooks.

A page loads nothing, runs nothing, and escapes every text. The same report always gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from touchstone.auditing.explain import explained
from touchstone.auditing.finding import Example, Finding, Report
from touchstone.auditing.reporting.batch import SEEN
from touchstone.auditing.reporting.table import TALLEST, by_group, by_reason, chosen, figure, figures, one_line, sign

REPOSITORIES = {
    **{
        name: f"huggingface/{name}"
        for name in ("transformers", "accelerate", "datasets", "trl", "course", "evaluate", "peft", "tokenizers")
    },
    "pytorch": "pytorch/pytorch",
    "sentence-transformers": "huggingface/sentence-transformers",
}
"""The repositories whose threads a finding may name, as in `transformers#47688`."""
REFERENCE = re.compile(rf"(?<![\w/-])({'|'.join(map(re.escape, REPOSITORIES))})#(\d{{1,6}})\b")
MARKS = {"fail": "✗", "warn": "!", "pass": "✓", "not-checked": "?", "ignored": "○"}
ACROSS, DOWN = 16, 12
"""Rows of an example that are shown at once, if they are set across the page or down."""
WORDS = {"fail": "fault", "warn": "warning", "pass": "passed", "not-checked": "not checked", "ignored": "ignored"}


@dataclass(frozen=True)
class Chip:
    """One token of a batch, or a run of equal padding tokens."""

    token: str
    label: str
    seen: str
    count: int = 1


def page(report: Report) -> str:
    """Return the report as a whole HTML document."""
    return _render(report, whole=True)


def fragment(report: Report) -> str:
    """Return the report as an HTML element with its own style, to be put into another document."""
    return _render(report, whole=False)


def _render(report: Report, *, whole: bool) -> str:
    counts = {str(kind): number for kind, number in report.counts.items()} | {"ignored": len(report.ignored())}
    return str(
        _template().render(
            report=report,
            whole=whole,
            counts=[(kind, counts[kind]) for kind in ("fail", "warn", "ignored", "pass", "not-checked")],
            shown=[*report.with_outcome("fail"), *report.with_outcome("warn"), *report.ignored()],
            passed=by_group(report.with_outcome("pass")),
            not_checked=by_reason(report.with_outcome("not-checked")),
            batch=[(each.caption, list(chips(each))) for each in report.batch],
            marks=MARKS,
            words=WORDS,
            legend=SEEN,
            kinds={row[each.columns.index("seen")] for each in report.batch for row in each.rows},
        )
    )


def chips(table: Example) -> Iterator[Chip]:
    """Yield the tokens of a row of the batch. A run of equal padding tokens is one chip."""
    column = {name: index for index, name in enumerate(table.columns)}
    waiting: Chip | None = None
    for row in table.rows:
        label = row[column["label"]]
        chip = Chip(_cell(row[column["token"]]), _cell(label), row[column["seen"]])
        if waiting is not None and chip.seen == "padding" and chip == Chip(waiting.token, waiting.label, waiting.seen):
            waiting = Chip(waiting.token, waiting.label, waiting.seen, waiting.count + 1)
            continue
        if waiting is not None:
            yield waiting
        waiting = chip
    if waiting is not None:
        yield waiting


@dataclass(frozen=True)
class Excerpt:
    """The rows of an example that the page shows: the marked ones and their neighbours.

    Args:
        indices: the rows shown; -1 stands for rows that are left out.
        across: each row of the example is a column of the page, as a sentence is read.
        whole: no row is left out.
    """

    indices: list[int]
    across: bool
    whole: bool


def excerpt(example: Example) -> Excerpt:
    """Return what to show of an example. Tables of short texts, such as tokens and labels, are set across.

    >>> excerpt(Example(("token",), [(letter,) for letter in "abcdefghijklmnopqrstuvwxyz"], marked=(9,))).indices
    [-1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, -1]
    """
    longest = max((len(_cell(cell)) for row in example.rows for cell in row), default=0)
    across = len(example.columns) <= 5 and len(example.rows) > 3 and longest <= TALLEST
    shown = chosen(len(example.rows), example.marked, limit=ACROSS if across else DOWN)
    indices: list[int] = []
    for index in shown:
        if index != (indices[-1] + 1 if indices else 0):
            indices.append(-1)
        indices.append(index)
    if shown and shown[-1] != len(example.rows) - 1:
        indices.append(-1)
    return Excerpt(indices, across, whole=-1 not in indices)


def parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a text with their links: `transformers#47688` leads to its thread, other parts have none.

    >>> list(parts("see course#641."))
    [('see ', ''), ('course#641', 'https://github.com/huggingface/course/issues/641'), ('.', '')]
    """
    at = 0
    for found in REFERENCE.finditer(text):
        if found.start() > at:
            yield text[at : found.start()], ""
        yield found[0], f"https://github.com/{REPOSITORIES[found[1]]}/issues/{found[2]}"
        at = found.end()
    if at < len(text):
        yield text[at:], ""


def _kind(finding: Finding) -> str:
    return "ignored" if finding.ignored else finding.outcome


def _cell(value: Any) -> str:
    return "" if value is None else sign(figure(value))


def _code(text: str) -> str:
    return "\n".join(sign(line) for line in text.splitlines())


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    # Not a PackageLoader: it would need the package's name, and a zip file is no place to read from either way.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        parts=parts,
        excerpt=excerpt,
        kind=_kind,
        cell=_cell,
        figures=figures,
        visible=one_line,
        code=_code,
        explained=explained,
    )
    return environment.from_string(Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8"))
