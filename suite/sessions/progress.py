"""What a person sees while a trial runs: a bar on a terminal, now and then a line anywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from suite.runs.serving import Message
from suite.sessions.figures import duration, figure

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
