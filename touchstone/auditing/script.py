"""Run a training script until it has begun to train, and audit what is there."""

from __future__ import annotations

import contextlib
import os
import runpy
import shlex
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from touchstone.auditing.finding import Report
from touchstone.auditing.observing.ending import Done, Ending, WriteGuard
from touchstone.auditing.observing.observe import Observer
from touchstone.auditing.observing.record import Recorder
from touchstone.auditing.probe import Budget, Probe, run_probes
from touchstone.auditing.reading.tasks import named_task


class CannotJudge(Exception):
    """The script failed before it began to train, or never trained. The message says where, and what to do."""


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

    A script with a Trainer ends when it calls `train`. A script with a loop of its own goes on for a few steps, and to
    its evaluation and its second epoch if they come soon.

    Args:
        script: the script's path.
        arguments: its own arguments.

    Raises:
        CannotJudge: the script failed, ended without training, or does not exist.
    """
    reports: list[Report] = []
    ending = Ending(budget)
    recorder = Recorder(ending)
    repro = f"touchstone audit --probe {{probe}} {shlex.join([str(script), *arguments])}"

    def judge(subject: Any) -> None:
        subject.name = str(script)
        if task is None:
            subject.task = named_task(subject)
        subject.repro = repro
        with contextlib.redirect_stdout(sys.stderr):
            reports.append(run_probes(subject, budget=budget, ids=probes, seconds=seconds, progress=progress))

    def on_train(trainer: Any) -> None:
        from touchstone.auditing.adapters.loop import called_tokenizer
        from touchstone.auditing.adapters.trainer import subject_of

        recorder.active, observer.on_train = False, None
        subject = subject_of(trainer, maps=observer.maps, task=task)
        if subject.tokenizer is None:
            subject.tokenizer = called_tokenizer(recorder, subject.model)
        judge(subject)
        ending.finish("Trainer.train was called")

    guard = WriteGuard(ending, script.parent)
    with Observer(recorder.patches, guard.patches) as observer, guard:
        observer.on_train = on_train
        namespace: dict[str, Any] = {}
        failure = _run(script, arguments, ending, namespace)
    recorder.active = False
    if not reports and recorder.trace.updates:
        from touchstone.auditing.adapters.loop import subject_of

        if failure:
            print(f"{failure}: the audit goes on with what was seen before", file=sys.stderr)
        recorder.trace.ended = failure or ending.reason or "the script ended"
        with _main(namespace):
            judge(subject_of(recorder, maps=observer.maps, task=task))
    if not reports:
        raise CannotJudge(failure or _untrained(script, recorder, ending))
    return reports[0]


def _untrained(script: Path, recorder: Recorder, ending: Ending) -> str:
    backward = recorder.trace.unstepped
    if backward:
        return (
            f"{script}: backward was called {backward} times, but no step of a torch optimizer was seen"
            f"{f' before {ending.reason}' if ending.reason else ''}: call optimizer.step()"
        )
    calls = len(recorder.trace.forwards)
    seen = f"; the model was called {calls} times without backward" if calls else ""
    return (
        f"{script}: it ended without training: no Trainer.train() and no optimizer step was seen{seen}. "
        "Pass the arguments with which it trains, such as --do_train"
    )


@contextlib.contextmanager
def _main(namespace: dict[str, Any]) -> Iterator[None]:
    """Let `__main__` be a module with the script's variables, as while it ran."""
    saved, main = sys.modules["__main__"], types.ModuleType("__main__")
    vars(main).update(namespace)
    sys.modules["__main__"] = main
    try:
        yield
    finally:
        sys.modules["__main__"] = saved


def _run(script: Path, arguments: Sequence[str], ending: Ending, namespace: dict[str, Any]) -> str:
    """Run the script as `python SCRIPT ARGUMENTS` would, and return how it failed, or "".

    Its output goes to the standard error. Its variables go to `namespace`.

    Raises:
        CannotJudge: there is no such file.
    """
    if not script.is_file():
        raise CannotJudge(f"{script}: there is no such file")
    saved = sys.argv, list(sys.path), sys.modules["__main__"]
    sys.argv = [str(script), *arguments]
    sys.path[0:0] = [str(script.resolve().parent)]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            namespace.update(runpy.run_path(str(script), run_name="__main__"))
    except Done as done:
        for frame, _ in traceback.walk_tb(done.__traceback__):
            if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
                namespace.update(frame.f_globals)
                break
    except SystemExit as error:
        if error.code not in (None, 0) and not ending.done:
            return f"{script}: it exited with {error.code!r} {_when(ending)}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if not ending.done:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if os.path.abspath(frame.filename) == str(script.resolve())]
            at = f"{script}:{own[-1].lineno}" if own else str(script)
            return f"{at}: {type(error).__name__}: {error} ({_when(ending)})"
    finally:
        sys.argv, sys.path[:], sys.modules["__main__"] = saved
    return ""


def _when(ending: Ending) -> str:
    return "after it had begun to train" if ending.began else "before it trained"
