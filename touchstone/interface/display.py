"""Format finished runs for a person: figures, one line per run, and the tables at the end of a session."""

from __future__ import annotations

import io
import math
import sys
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pytest

    from touchstone.interface.config import Mean
    from touchstone.records.record import Record
    from touchstone.runs.trials import Result
    from touchstone.specs.verdict import Verdict

PIPE_WIDTH = 140
"""Line width if the output is not a terminal."""
WIDE = 124
"""Line width from which the summary table shows all its columns."""
MIN_WIDTHS = {"band": WIDE, "tokens/s": 90, "memory": 90}
"""Columns that are left out of a narrower table. Each run's line shows its bands, and records hold everything."""
TASK_WIDTH = 20
"""Width of a task's name in a narrow table, where it is wrapped after a hyphen."""
VERDICT_STYLES = {
    "as-expected": ("as expected", "green"),
    "worse": ("worse", "bold red"),
    "better-than-expected": ("better than expected", "bold magenta"),
    "no-expectation": ("no expectation", "yellow"),
}
COLUMNS = (
    ("task", "left"),
    ("engine", "left"),
    ("seed", "right"),
    ("metric", "left"),
    ("value", "right"),
    ("band", "left"),
    ("verdict", "left"),
    ("time", "right"),
    ("tokens/s", "right"),
    ("floor", "right"),
    ("memory", "right"),
)
Row = tuple[str | Text, ...]


def figure(value: float | None) -> str:
    """Format a value with four significant digits: 0.8637, 12.31."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Format a duration: 9.9 s, 61 s, 2 min 00 s, 2 h 03 min."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def percent(fraction: float | None) -> str:
    """Format a fraction as a percentage, with one decimal place below 10%: 62%, 4.1%."""
    if fraction is None:
        return "-"
    return f"{fraction:.1%}" if fraction < 0.0995 else f"{fraction:.0%}"


def size(count: int | None) -> str:
    """Format a number of bytes in binary units: 300 MiB, 1.50 GiB."""
    if count is None:
        return "-"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def band(verdict: Verdict) -> str:
    """Format the band of a verdict. A target of the open division has only one end."""
    if verdict.low is None or verdict.high is None:
        ends = (("from", verdict.low), ("to", verdict.high))
        return next((f"{word} {figure(end)}" for word, end in ends if end is not None), "-")
    return f"{figure(verdict.low)} to {figure(verdict.high)}"


def verdict_text(verdict: Verdict) -> Text:
    text, style = VERDICT_STYLES[verdict.status]
    return Text(text, style=style)


def shorten(text: str, *, width: int) -> str:
    return text if len(text) <= width else text[: width - 4] + " ..."


def result_line(result: Result) -> Text:
    """Format one finished run on one line."""
    trial = result.trial
    line = Text(f"  {trial.spec.name}  {trial.engine}  seed {trial.seed}  ")
    if result.record is None:
        failure = result.outcome.failure
        cause = "" if failure is None else shorten(failure.cause.splitlines()[0], width=100)
        return line + Text("failed", style="bold red") + Text(f"  {cause}")
    for verdict in result.record.verdicts:
        line += Text(f"{verdict.metric} {figure(verdict.value)} ") + verdict_text(verdict)
        line += Text("  " if (text := band(verdict)) == "-" else f" ({text})  ")
    return line + Text(duration(run_seconds(result)))


def summary_table(results: Sequence[Result], means: Sequence[Mean] = (), *, width: int = PIPE_WIDTH) -> Table:
    """Build the table of all runs and of the means over seeds. Runs of the open division come last, in a section.

    Args:
        width: of the terminal. Some columns are left out of a narrow table (`MIN_WIDTHS`).
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown = [width >= MIN_WIDTHS.get(name, 0) for name, _ in COLUMNS]
    for (name, justify), wanted in zip(COLUMNS, shown, strict=True):
        if wanted:
            wraps = name == "verdict"  # the only column that may be wrapped
            min_width = len("expected") if wraps else None
            table.add_column(name, justify=justify, no_wrap=not wraps, min_width=min_width)  # type: ignore[arg-type]

    def add(task: str | Text, *cells: str | Text) -> None:
        first = task if width >= WIDE else textwrap.fill(str(task), TASK_WIDTH)
        table.add_row(*(cell for cell, wanted in zip((first, *cells), shown, strict=True) if wanted))

    open_names = {result.trial.spec.name for result in results if result.trial.spec.division == "open"}
    for division in ("closed", "open") if open_names else ("closed",):
        if division == "open":
            table.add_section()
            add("open division:", *[""] * (len(COLUMNS) - 1))
        for result in results:
            if result.trial.spec.division == division:
                for row in _result_rows(result):
                    add(*row)
        for name, engine, seeds, verdict in means:
            if (name in open_names) == (division == "open"):
                add(name, engine, seeds, *_verdict_cells(verdict, prefix="mean "), "", "", "", "")
    return table


def _result_rows(result: Result) -> list[Row]:
    """Build the table rows of one run: one for each asserted metric."""
    trial, record = result.trial, result.record
    if record is None:
        kind = result.outcome.failure.kind if result.outcome.failure else "failed"
        failed = Text({"signal": "killed", "timeout": "timed out"}.get(kind, "failed"), "bold red")
        costs = (duration(result.outcome.seconds), "-", "-", size(result.outcome.peak_bytes))
        return [(trial.spec.name, trial.engine, str(trial.seed), "-", "-", "-", failed, *costs)]
    engine = trial.engine if record.processes == 1 else f"{trial.engine} x{record.processes}"
    head = (trial.spec.name, engine, str(trial.seed))
    rate = record.tokens_per_second
    costs = (
        duration(run_seconds(result)),
        "-" if rate is None else f"{rate:,.0f}",
        percent(record.fraction_of_floor),
        peak_memory(record),
    )
    if not record.verdicts:
        return [(*head, "-", "-", "-", Text("nothing asserted", "yellow"), *costs)]
    first, *others = (_verdict_cells(verdict) for verdict in record.verdicts)
    return [(*head, *first, *costs), *(("", "", "", *cells, "", "", "", "") for cells in others)]


def _verdict_cells(verdict: Verdict, *, prefix: str = "") -> Row:
    return (f"{prefix}{verdict.metric}", figure(verdict.value), band(verdict), verdict_text(verdict))


def run_seconds(result: Result) -> float:
    """Return the seconds of the run, or those of its process if it left no record."""
    return result.outcome.seconds if result.record is None else result.record.seconds


def peak_memory(record: Record) -> str:
    host, device = size(record.memory.host_bytes), record.memory.device_bytes
    return host if device is None else f"{size(device)} GPU, {host}"


def sample_outputs_table(record: Record) -> Table:
    """Build a table of the model's sample outputs before and after training, side by side."""
    moments = list(record.sample_outputs)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for moment in moments:
        table.add_column(f"{record.spec.name}, sample outputs {moment} training", no_wrap=True)
    for row in zip_longest(*(record.sample_outputs[moment] for moment in moments), fillvalue=""):
        table.add_row(*(Text(cell) for cell in row))
    return table


def closing_lines(results: Sequence[Result], *, directory: Path) -> list[str]:
    """List why runs were not judged, each reason once, and where the records are, relative to `directory`."""
    reasons: dict[str, None] = {}  # ordered, without duplicates
    for result in results:
        spec = result.trial.spec
        for verdict in [] if result.record is None else result.record.verdicts:
            if verdict.status == "no-expectation":
                why = verdict.explanation
                if spec.overrides:
                    why = "expectations do not apply with --dataset or --checkpoint"
                reasons[f"not judged: {verdict.metric} of {spec.name}, profile {spec.profile}: {why}"] = None
    lines = list(reasons)
    paths = [result.path for result in results if result.path is not None]
    if paths:
        lines.append("records:")
        lines += [f"  {path.relative_to(directory) if path.is_relative_to(directory) else path}" for path in paths]
    return lines


def terminal_width(reporter: pytest.TerminalReporter) -> int:
    """Return the width of pytest's terminal, or at least `PIPE_WIDTH` if the output is a pipe."""
    width: int = reporter._tw.fullwidth
    return width if sys.stdout.isatty() else max(width, PIPE_WIDTH)


def as_text(renderable: RenderableType, *, width: int, colour: bool, encoding: str = "utf-8") -> str:
    """Return what rich would print to a stream of this encoding, with colour codes only if `colour`."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace", newline="")
    console = Console(
        file=stream, width=width, force_terminal=colour, no_color=not colour, legacy_windows=False, highlight=False
    )
    console.print(renderable)
    stream.flush()
    stream.seek(0)
    return stream.read().rstrip("\n")
