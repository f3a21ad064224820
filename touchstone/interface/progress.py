"""Show the progress of one run: a progress bar on a terminal, occasional lines anywhere else."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typing_extensions import Self

from touchstone.interface.display import duration, figure
from touchstone.runs.isolation import Message

MAX_SILENCE_SECONDS = 20.0
"""Without a terminal, a line is printed at least this often while steps are reported."""
WIDE = 110
"""Terminal width from which the progress bar has room for all its parts."""


class ProgressView(Protocol):
    """Shows one run while it is going on. Use it as a context manager."""

    def update(self, message: Message) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def progress_view(title: str, *, console: Console) -> ProgressView:
    """Return a bar if standard output is an interactive terminal, else lines on standard output."""
    interactive = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
    return ProgressBar(title, console=console) if interactive else ProgressLines(title, stream=sys.stdout)


class TimeLeft:
    """Estimates the remaining training time from the pace so far. Evaluations are not included."""

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
            if self._first_step is None:  # a resumed run does not begin at step 0
                self._first_step = message["step"]
            done = message["step"] - self._first_step
            self.seconds = self.trained / done * (message["steps"] - message["step"]) if done > 0 else None

    def text(self) -> str:
        return f"{duration(self.seconds)} left" if self.seconds else ""


class ProgressBar:
    """A bar that is redrawn in place and removed when the run ends."""

    def __init__(self, title: str, *, console: Console) -> None:
        title_column, phase = TextColumn("  {task.description}"), TextColumn("[bold]{task.fields[phase]}")
        figures, left = TextColumn("{task.fields[figures]}"), TextColumn("{task.fields[left]}", style="cyan")
        wide = (title_column, phase, BarColumn(bar_width=20), MofNCompleteColumn(), figures, TimeElapsedColumn(), left)
        narrow = (title_column, MofNCompleteColumn(), figures, left)
        self.progress = Progress(
            *(wide if console.width >= WIDE else narrow),
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


class ProgressLines:
    """A line for every evaluation, and one in between if there was none for `MAX_SILENCE_SECONDS`."""

    def __init__(self, title: str, *, stream: TextIO) -> None:
        self.title = title
        self.stream = stream
        self.printed = time.monotonic()
        self.train = ""
        self.left = TimeLeft()

    def update(self, message: Message) -> None:
        self.left.update(message)
        if message["phase"] == "train":
            self.train = f"step {message['step']}/{message['steps']}  {loss_text(message)}".rstrip()
        score = score_text(message)
        now = time.monotonic()
        if not score and now - self.printed < MAX_SILENCE_SECONDS:
            return
        self.printed = now
        where = self.train or ("before training" if score else f"{message['phase']} ...")
        parts = [where, score, self.left.text()]
        print(f"  {self.title}: " + "  ".join(filter(None, parts)), file=self.stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.flush()


class NoProgress:
    """Shows nothing, for a quiet session."""

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
