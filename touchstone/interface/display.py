"""What a person sees of finished trials: a line each, and the tables at the end."""

from __future__ import annotations

import io
import sys
import textwrap
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TextIO

import pytest
from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from touchstone.records.record import Record
from touchstone.runs.isolation import Message
from touchstone.runs.trials import Result
from touchstone.specs.verdict import Verdict

# How figures are told to a person: as many digits as mean something, in units that need no counting of zeros.


def figure(value: float | None) -> str:
    """Four significant digits: F1 0.8637, perplexity 12.31."""
    if value is None:
        return "-"
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.4g}"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def share(fraction: float | None) -> str:
    """Two significant digits where it is small: 62%, 4.1%."""
    if fraction is None:
        return "-"
    return f"{fraction:.1%}" if fraction < 0.0995 else f"{fraction:.0%}"


def size(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


# What a person sees while a trial runs: a bar on a terminal, now and then a line anywhere else.


LINE_SECONDS = 20.0
"""Without a terminal: the longest silence while steps go on."""


class RunDisplay(Protocol):
    """Shows one trial while it runs."""

    def update(self, message: Message) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class TimeLeft:
    """Of training, by the pace so far; evaluations in between are neither counted nor foretold."""

    def __init__(self) -> None:
        self.trained = 0.0
        self.seconds: float | None = None
        self._last: tuple[str, float] | None = None
        self._first_step: int | None = None

    def update(self, message: Message) -> None:
        now = time.monotonic()
        if self._last is not None and self._last[0] == message["phase"] == "train":
            self.trained += now - self._last[1]
        self._last = message["phase"], now
        if message["phase"] == "train":
            if self._first_step is None:  # a resumed run does not begin at 0
                self._first_step = message["step"]
            done = message["step"] - self._first_step
            self.seconds = self.trained / done * (message["steps"] - message["step"]) if done > 0 else None

    def text(self) -> str:
        return f"{duration(self.seconds)} left" if self.seconds else ""


class LiveDisplay:
    """A bar that redraws itself in place and vanishes when the trial ends."""

    def __init__(self, title: str, *, console: Console) -> None:
        self.progress = Progress(
            TextColumn("  {task.description}"),
            TextColumn("[bold]{task.fields[phase]}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", style="cyan"),
            console=console,
            transient=True,
            refresh_per_second=5,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.task = self.progress.add_task(title, total=None, phase="starting", figures="", left="")
        self.score = ""
        self.left = TimeLeft()

    def update(self, message: Message) -> None:
        self.left.update(message)
        self.score = score_text(message) or self.score
        self.progress.update(
            self.task,
            completed=message["step"],
            total=message["steps"] or None,
            phase=message["phase"],
            figures="  ".join(filter(None, [loss_text(message), self.score])),
            left=self.left.text(),
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


class LineDisplay:
    """A line for every evaluation, and now and then one in between."""

    def __init__(self, title: str, *, stream: TextIO) -> None:
        self.title = title
        self.stream = stream
        self.spoken = time.monotonic()
        self.train = ""
        self.left = TimeLeft()

    def update(self, message: Message) -> None:
        self.left.update(message)
        if message["phase"] == "train":
            self.train = f"step {message['step']}/{message['steps']}  {loss_text(message)}".rstrip()
        score = score_text(message)
        now = time.monotonic()
        if not score and now - self.spoken < LINE_SECONDS:
            return
        self.spoken = now
        where = self.train or ("before training" if score else f"{message['phase']} ...")
        parts = [where, score, self.left.text()]
        print(f"  {self.title}: " + "  ".join(filter(None, parts)), file=self.stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.flush()


class NoDisplay:
    """For a quiet session."""

    def update(self, message: Message) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def loss_text(message: Message) -> str:
    return "" if message["loss"] is None else f"loss {message['loss']:.3f}"


def score_text(message: Message) -> str:
    score = message["score"]
    return "" if score is None else f"{score['name']} {figure(score['value'])}"


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
    moments = list(record.sample_outputs)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for moment in moments:
        table.add_column(f"{record.spec.name}, {moment} training", no_wrap=True)
    for row in zip_longest(*(record.sample_outputs[moment] for moment in moments), fillvalue=""):
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
