"""Run a training script until it begins to train, and audit what is there."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from touchstone.auditing.finding import Report
from touchstone.auditing.observe import Observer
from touchstone.auditing.probe import Budget, Probe, run_probes


class CannotJudge(Exception):
    """The script failed before it began to train, or never trained. The message says where, and what to do."""


class _Done(BaseException):
    """Ends the script after the audit. It is not an Exception, so that the script's own handlers let it pass."""


def audit_script(
    script: Path,
    arguments: Sequence[str] = (),
    *,
    budget: Budget = "default",
    probes: Iterable[str] | None = None,
    task: str | None = None,
    seconds: float | None = None,
    progress: Callable[[Probe, int, int], None] | None = None,
) -> Report:
    """Run a script unmodified until it begins to train, audit it, end it, and return the report.

    Args:
        script: the script's path.
        arguments: its own arguments.

    Raises:
        CannotJudge: the script failed, ended without training, or does not exist.
    """
    reports: list[Report] = []

    def on_train(trainer: Any) -> None:
        from touchstone.auditing.trainer import subject_of

        subject = subject_of(trainer, maps=observer.maps, task=task)
        subject.name = str(script)
        subject.repro = f"touchstone audit --probe {{probe}} {' '.join([str(script), *arguments])}"
        reports.append(run_probes(subject, budget=budget, ids=probes, seconds=seconds, progress=progress))
        raise _Done

    with Observer() as observer:
        observer.on_train = on_train
        _run(script, arguments)
    if not reports:
        raise CannotJudge(f"{script}: it ended without training: no Trainer.train() and no optimizer step was seen")
    return reports[0]


def _run(script: Path, arguments: Sequence[str]) -> None:
    """Run the script as `python SCRIPT ARGUMENTS` would. Its output goes to the standard error."""
    if not script.is_file():
        raise CannotJudge(f"{script}: there is no such file")
    saved = sys.argv, list(sys.path)
    sys.argv = [str(script), *arguments]
    sys.path[0:0] = [str(script.resolve().parent)]
    try:
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(_Done):
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as error:
        if error.code not in (None, 0):
            raise CannotJudge(f"{script}: it exited with {error.code!r} before it trained") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if os.path.abspath(frame.filename) == str(script.resolve())]
        at = f"{script}:{own[-1].lineno}" if own else str(script)
        raise CannotJudge(f"{at}: {type(error).__name__}: {error} (before it trained)") from error
    finally:
        sys.argv, sys.path[:] = saved[0], saved[1]
