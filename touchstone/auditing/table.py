"""The report as a table for the terminal."""

from __future__ import annotations

import io
from typing import Any

from touchstone.auditing.finding import Report

SYMBOLS = {"pass": "[green]pass[/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]", "not-checked": "[dim]  — [/]"}


def as_table(report: Report) -> Any:
    """Return the report as a rich renderable."""
    from rich.table import Table

    table = Table(title=f"{report.subject}: {report.task}", caption=f"ran {report.ran} of {report.of}")
    for column in ("", "probe", "finding"):
        table.add_column(column)
    for each in report.findings:
        table.add_row(SYMBOLS[each.outcome], each.probe, "\n".join(filter(None, (each.message, each.cause))))
    return table


def as_text(report: Report, *, width: int = 120) -> str:
    """Return the report as plain text."""
    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=width, no_color=True, force_terminal=False).print(as_table(report))
    return stream.getvalue().rstrip()
