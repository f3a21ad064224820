"""What a person sees of finished trials: a line each, and the tables at the end."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import pytest
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from suite.records.record import Record
from suite.runs.trials import Result
from suite.sessions.figures import duration, figure, share, size
from suite.specs.verdict import Verdict

PIPE_WIDTH = 140
"""Columns where nobody says how many there are."""
WIDE = 124
"""Columns from which on the summary has room for everything."""
FROM_WIDTH = {"band": WIDE, "tokens/s": 90, "memory": 90}
"""What is left out of a narrower one: the bands stand in each trial's own line, all of it in the records."""
TASK_WIDTH = 20
"""Of a task's name there; it is broken after a hyphen."""
VERDICT_STYLES = {
    "as-expected": ("as expected", "green"),
    "worse": ("worse", "bold red"),
    "better-than-expected": ("better than expected", "bold magenta"),
    "no-expectation": ("no expectation", "yellow"),
}


def shorten(text: str, *, width: int) -> str:
    return text if len(text) <= width else text[: width - 4] + " ..."


def band(verdict: Verdict) -> str:
    if verdict.low is None or verdict.high is None:
        ends = (("from", verdict.low), ("to", verdict.high))  # of a target, the one that counts
        return next((f"{word} {figure(end)}" for word, end in ends if end is not None), "-")
    return f"{figure(verdict.low)} to {figure(verdict.high)}"


def verdict_text(verdict: Verdict) -> Text:
    text, style = VERDICT_STYLES[verdict.status]
    return Text(text, style=style)


def result_line(result: Result) -> Text:
    """One finished trial on one line."""
    trial = result.trial
    line = Text(f"  {trial.spec.name}  {trial.engine}  seed {trial.seed}  ")
    if result.record is None:
        failure = result.outcome.failure
        cause = "" if failure is None else shorten(failure.cause.splitlines()[0], width=100)
        return line + Text("failed", style="bold red") + Text(f"  {cause}")
    for verdict in result.record.verdicts:
        line += Text(f"{verdict.metric} {figure(verdict.value)} ") + verdict_text(verdict)
        line += Text("  " if (of := band(verdict)) == "-" else f" ({of})  ")
    return line + Text(duration(run_seconds(result)))


def summary_table(
    results: Sequence[Result], means: Sequence[tuple[str, str, str, Verdict]] = (), *, width: int = PIPE_WIDTH
) -> Table:
    """Every trial with its figures; `means` are (spec, engine, seeds, verdict) of several seeds together.

    What is of the open division stands apart, below the rest.

    Args:
        width: of the terminal. A narrow one has no room for some columns (`FROM_WIDTH`).
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown: list[bool] = []
    for name, justify in (
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
    ):
        shown.append(width >= FROM_WIDTH.get(name, 0))
        if shown[-1]:
            min_width = len("expected") if name == "verdict" else None  # the one column that may be wrapped
            no_wrap = name != "verdict"
            table.add_column(name, justify=justify, no_wrap=no_wrap, min_width=min_width)  # type: ignore[arg-type]

    def add(task: str, *cells: str | Text) -> None:
        first = task if width >= WIDE else textwrap.fill(task, TASK_WIDTH)
        table.add_row(*(cell for cell, wanted in zip((first, *cells), shown, strict=True) if wanted))

    def add_result(result: Result) -> None:
        trial, record = result.trial, result.record
        engine = trial.engine if record is None or record.processes == 1 else f"{trial.engine} x{record.processes}"
        head = (trial.spec.name, engine, str(trial.seed))
        if record is None:
            kind = result.outcome.failure.kind if result.outcome.failure else "failed"
            failed = Text({"signal": "killed", "timeout": "timed out"}.get(kind, "failed"), "bold red")
            add(
                *head,
                "-",
                "-",
                "-",
                failed,
                duration(result.outcome.seconds),
                "-",
                "-",
                size(result.outcome.peak_bytes),
            )
            return
        rate = record.tokens_per_second
        tokens = "-" if rate is None else f"{rate:,.0f}"
        last = (duration(run_seconds(result)), tokens, share(record.fraction_of_floor), peak_memory(record))
        for index, verdict in enumerate(record.verdicts):
            row = (verdict.metric, figure(verdict.value), band(verdict), verdict_text(verdict))
            add(*(head if index == 0 else ("", "", "")), *row, *(last if index == 0 else ("", "", "", "")))
        if not record.verdicts:
            add(*head, "-", "-", "-", Text("nothing asserted", "yellow"), *last)

    of_open = {result.trial.spec.name for result in results if result.trial.spec.division == "open"}
    for division in ("closed", "open"):
        if division == "open" and of_open:
            table.add_section()
            add("open division:", *[""] * 10)
        for result in results:
            if result.trial.spec.division == division:
                add_result(result)
        for name, engine, seeds, verdict in means:
            if (name in of_open) == (division == "open"):
                row = (f"mean {verdict.metric}", figure(verdict.value), band(verdict), verdict_text(verdict))
                add(name, engine, seeds, *row, "", "", "", "")
    return table


def run_seconds(result: Result) -> float:
    """Of a run that left no record, what its process took."""
    return result.outcome.seconds if result.record is None else result.record.seconds


def peak_memory(record: Record) -> str:
    host, device = size(record.memory.host_bytes), record.memory.device_bytes
    return host if device is None else f"{size(device)} GPU, {host}"


def probe_table(record: Record) -> Table:
    """What the model did with the task's probe before and after training, side by side."""
    moments = list(record.probes)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for moment in moments:
        table.add_column(f"{record.spec.name}, {moment} training", no_wrap=True)
    for row in zip_longest(*(record.probes[moment] for moment in moments), fillvalue=""):
        table.add_row(*(Text(cell) for cell in row))
    return table


def closing_lines(results: Sequence[Result], *, directory: Path) -> list[str]:
    """What a table cannot say: what was not judged and why, and where records lie, as one would type it."""
    reasons: dict[str, None] = {}  # in order, each once
    for result in results:
        spec = result.trial.spec
        for verdict in [] if result.record is None else result.record.verdicts:
            if verdict.status == "no-expectation":
                why = verdict.explanation
                if spec.overrides:
                    why = "no expectation applies where --dataset or --checkpoint is given"
                reasons[f"not judged: {verdict.metric} of {spec.name}, profile {spec.profile}: {why}"] = None
    lines = list(reasons)
    paths = [result.path for result in results if result.path is not None]
    if paths:
        lines.append("records:")
        lines += [f"  {path.relative_to(directory) if path.is_relative_to(directory) else path}" for path in paths]
    return lines


def columns(reporter: pytest.TerminalReporter) -> int:
    """What fits on a line of pytest's: of the terminal, or as if it were a wide one where it is a pipe."""
    width: int = reporter._tw.fullwidth
    return width if sys.stdout.isatty() else max(width, PIPE_WIDTH)


def as_text(renderable: RenderableType, *, width: int, colour: bool, encoding: str = "utf-8") -> str:
    """What rich would print on a stream of this encoding: plain unless `colour`."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace", newline="")
    console = Console(
        file=stream, width=width, force_terminal=colour, no_color=not colour, legacy_windows=False, highlight=False
    )
    console.print(renderable)
    stream.flush()
    stream.seek(0)
    return stream.read().rstrip("\n")
