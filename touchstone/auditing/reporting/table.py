"""The report as text for the terminal: a headline, the faults, the warnings, and the rest in a few lines."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from touchstone.auditing.finding import Example, Finding, Report, jsonable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

WIDEST = 120
"""Longer lines of prose are hard to read, however wide the terminal is."""
INDENT = 6
STYLES = {"fail": "bold red", "warn": "yellow", "pass": "green", "not-checked": "dim", "ignored": "dim"}
WORDS = {"fail": "FAIL", "warn": "warn", "pass": "pass", "not-checked": "not checked", "ignored": "ignored"}
ROWS_SHOWN = 10
"""Rows of an example in the terminal. The page shows all."""
TALLEST = 18
"""The longest text, in cells, that is set in a column of its own; tables with longer ones are set row by row."""
LONGEST_CELL = 200
IDS_SHOWN = 6


def as_table(report: Report, *, verbose: bool = False) -> Any:
    """Return the report as a rich renderable that fits any console from 60 columns.

    Args:
        verbose: list every probe with its message, instead of a line per group.
    """
    return _View(report, verbose)


def as_text(report: Report, *, width: int | None = None, verbose: bool = False) -> str:
    """Return the report as plain text, by default as wide as the terminal."""
    return plain(as_table(report, verbose=verbose), width=width)


def finding_text(finding: Finding, *, width: int = WIDEST) -> str:
    """Return one finding as plain text."""
    from rich.console import Group

    return plain(Group(*_finding(finding, width=width)), width=width)


def plain(renderable: RenderableType, *, width: int | None = None) -> str:
    """Return a renderable as plain text."""
    from rich.console import Console

    stream = io.StringIO()
    width = shutil.get_terminal_size((WIDEST, 24)).columns if width is None else width
    Console(file=stream, width=width, no_color=True, force_terminal=False, highlight=False).print(renderable)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


class _View:
    """A report that adapts to the console it is printed on."""

    def __init__(self, report: Report, verbose: bool) -> None:
        self.report = report
        self.verbose = verbose

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        report, width = self.report, min(options.max_width, WIDEST)
        yield Text.assemble((one_line(report.subject), "bold"), f" ({one_line(report.task)})")
        yield Text(report.verdict, style=STYLES[_worst(report)])
        for finding in (*report.with_outcome("fail"), *report.with_outcome("warn"), *report.ignored()):
            yield Text()
            yield from _finding(finding, width=width)
        yield Text()
        yield from self._every(width) if self.verbose else self._folded(width)
        yield Text(f"ran {report.ran} of {report.of} probes", style="bold")

    def _folded(self, width: int) -> Iterator[RenderableType]:
        from rich.text import Text

        if found := self.report.with_outcome("pass"):
            yield Text("passed", style=STYLES["pass"])
            groups = by_group(found)
            widest = max(len(group) for group in groups)
            for group, findings in groups.items():
                ids = ", ".join(each.probe for each in findings)
                line = Text.assemble(f"  {group:<{widest}} {len(findings):>2}  ", (ids, "dim"))
                line.truncate(width, overflow="ellipsis")
                yield line
            yield Text()
        if found := self.report.with_outcome("not-checked"):
            yield Text("not checked")
            for reason, findings in by_reason(found).items():
                names = [each.probe for each in findings]
                if more := len(names) - IDS_SHOWN:
                    names = [*names[:IDS_SHOWN], f"{more} more"] if more > 0 else names
                yield _indented(Text.assemble(one_line(reason), (f" ({', '.join(names)})", "dim")), 2, width)
                if findings[0].cause:
                    yield _indented(Text(one_line(findings[0].cause), style="dim"), 4, width)
            yield Text()

    def _every(self, width: int) -> Iterator[RenderableType]:
        from rich.table import Table
        from rich.text import Text

        for example in self.report.batch[:1]:
            yield from _table(example, width=width, rows=len(example.rows), indent=2)
            yield Text()
        for group, findings in by_group(self.report.findings).items():
            yield Text(group, style="bold")
            table = Table.grid(padding=(0, 2))
            table.add_column(no_wrap=True)
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for each in findings:
                kind = "ignored" if each.ignored else each.outcome
                table.add_row(
                    Text(f"  {WORDS[kind]}", style=STYLES[kind]), Text(each.probe), Text(one_line(each.message))
                )
            yield _narrow(table, width)
            yield Text()


def by_group(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Return findings by the group of their probes, in the order of the table of probes."""
    from touchstone.auditing.probe import load_probes

    table = load_probes()
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(table[finding.probe].group if finding.probe in table else "other", []).append(finding)
    return groups


def by_reason(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Return findings that share a message under it."""
    reasons: dict[str, list[Finding]] = {}
    for finding in findings:
        reasons.setdefault(finding.message, []).append(finding)
    return reasons


def figure(value: Any) -> str:
    """Return a measured value as text; a float with six significant digits, a long one cut."""
    value = jsonable(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        text = ", ".join(map(figure, value)) or "none"
    elif isinstance(value, dict):
        text = ", ".join(f"{key}: {figure(item)}" for key, item in value.items()) or "none"
    else:
        text = str(value)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def figures(finding: Finding) -> str:
    """Return what was measured and expected, such as "measured 2, expected 0", or nothing."""
    pairs = (("measured", finding.measured), ("expected", finding.expected))
    return ", ".join(f"{name} {figure(value)}" for name, value in pairs if value is not None)


def _finding(finding: Finding, *, width: int) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    kind = "ignored" if finding.ignored else finding.outcome
    message = Text.assemble((one_line(finding.message), "bold"), (f"  [{finding.probe}]", "dim"))
    head = Table.grid(padding=(0, 2, 0, 0))
    head.add_column(min_width=INDENT - 2, no_wrap=True)
    head.add_column(overflow="fold")
    head.add_row(Text(WORDS[kind], style=STYLES[kind]), message)
    yield _narrow(head, width)
    if finding.ignored:
        yield _indented(Text(f"because: {one_line(finding.ignored)}"), INDENT, width)
        return
    if finding.cause:
        yield _indented(Text(one_line(finding.cause)), INDENT, width)
    if text := figures(finding):
        yield _indented(Text(one_line(text), style="dim"), INDENT, width)
    if finding.example is not None and finding.example.rows:
        yield from _table(finding.example, width=width, rows=ROWS_SHOWN, indent=INDENT)
    for line in finding.repro.splitlines():
        yield _indented(Text(one_line(line), style="cyan"), INDENT, width)


def _table(example: Example, *, width: int, rows: int, indent: int) -> Iterator[RenderableType]:
    """Yield the marked rows of an example and their neighbours: in columns if its texts are short, else row by row."""
    from rich.text import Text

    shown = chosen(len(example.rows), example.marked, limit=rows)
    cells = [[figure(cell) if cell is not None else "" for cell in example.rows[index]] for index in shown]
    of = "" if len(shown) == len(example.rows) else f"{len(shown)} of {len(example.rows)} rows"
    if caption := ", ".join(filter(None, (one_line(example.caption), of))):
        yield _indented(Text(caption, style="dim"), indent, width)
    marked = {int(each) for each in example.marked}
    upright = [[sign(text) for text in row] for row in cells]
    if len(example.columns) <= 4 and len(shown) > 3 and max(len(text) for row in upright for text in row) <= TALLEST:
        yield from _in_columns(example.columns, upright, shown, marked, width=width, indent=indent)
    else:
        yield _row_by_row(example.columns, upright, shown, marked, width=width, indent=indent)


def _in_columns(
    headings: Sequence[str],
    cells: list[list[str]],
    shown: list[int],
    marked: set[int],
    *,
    width: int,
    indent: int,
) -> Iterator[Text]:
    from touchstone.show.columns import set_in_columns

    lines = [[heading] for heading in (*headings, " ")]
    styles = [["dim"] for _ in lines]
    for position, (index, row) in enumerate(zip(shown, cells, strict=True)):
        if position and index != shown[position - 1] + 1:
            for line, style in zip(lines, styles, strict=True):
                line.append("…" if line is lines[0] else " ")
                style.append("dim")
        mark = "^" * max(1, *map(len, row)) if index in marked else " "
        for line, style, text in zip(lines, styles, [*row, mark], strict=True):
            line.append(text or " ")
            style.append("bold red" if index in marked else "")
    if not marked:
        del lines[-1], styles[-1]
    yield from set_in_columns(lines, width=width, styles=styles, indent=indent)


def _row_by_row(
    headings: Sequence[str],
    cells: list[list[str]],
    shown: list[int],
    marked: set[int],
    *,
    width: int,
    indent: int,
) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for _ in headings:
        table.add_column(overflow="fold")
    table.add_row("", *(Text(one_line(heading), style="dim") for heading in headings))
    before = -1
    for index, row in zip(shown, cells, strict=True):
        if index != before + 1 and before >= 0:
            table.add_row("", *("…" for _ in headings[:1]))
        style = "bold red" if index in marked else ""
        table.add_row(Text(">" if index in marked else " ", style=style), *(Text(text, style=style) for text in row))
        before = index
    return _indented(table, indent, width)


def chosen(count: int, marked: Sequence[int], *, limit: int) -> list[int]:
    """Return the indices of the rows to show: all, or the first marked ones and the rows nearest to them."""
    if count <= limit:
        return list(range(count))
    centres = sorted({int(each) for each in marked if 0 <= each < count})[: max(limit // 2, 1)] or [0]
    nearest = sorted(range(count), key=lambda index: (min(abs(index - centre) for centre in centres), index))
    return sorted(nearest[:limit])


def _worst(report: Report) -> str:
    counts = report.counts
    return "fail" if counts["fail"] else "warn" if counts["warn"] or not report.ran else "pass"


def _indented(renderable: RenderableType, indent: int, width: int) -> RenderableType:
    from rich.padding import Padding

    return _narrow(Padding(renderable, (0, 0, 0, indent), expand=False), width)


def _narrow(renderable: RenderableType, width: int) -> RenderableType:
    from rich.constrain import Constrain

    return Constrain(renderable, width)


def one_line(text: str) -> str:
    """Return prose without what could rewrite the terminal or reorder the line. Line ends become spaces."""
    return sign(" ".join(str(text).splitlines()))


def sign(text: str) -> str:
    """Return a text of the data with visible signs for line ends and other control characters."""
    from touchstone.show.columns import visible

    return visible(text)
