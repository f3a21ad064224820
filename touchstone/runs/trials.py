"""One trial: a spec on an engine with a seed. It runs in a separate process, and its record is written immediately."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from touchstone.engines import engine_slug
from touchstone.files import write_atomically
from touchstone.records.record import Record, RecordError, write_record
from touchstone.runs.distributed_launch import run_launched
from touchstone.runs.isolation import Message, Outcome, run_isolated

if TYPE_CHECKING:
    from touchstone.specs.spec import Spec

JOB = "touchstone.runs.job:train"


@dataclass(frozen=True)
class Conditions:
    """Where and how all trials of a session run.

    Attributes:
        mirror: a folder with copies of the hub's files.
        timeout: seconds; None for the spec's timeout.
        push_to: the hub repository to upload the model to.
        launcher: the command that starts the processes that train together; empty for a single process.
    """

    device: str = "cpu"
    precision: str = "fp32"
    mirror: Path | None = None
    timeout: float | None = None
    save_dir: Path | None = None
    resume: bool = False
    push_to: str | None = None
    launcher: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """A spec, with the user's overrides, on an engine with a seed."""

    spec: Spec
    engine: str
    seed: int
    conditions: Conditions = field(default_factory=Conditions)

    @property
    def group(self) -> str:
        """The name of all trials that differ only in their seed."""
        return f"{self.spec.name}-{engine_slug(self.engine)}"

    @property
    def name(self) -> str:
        """The name of the trial, of its test, its log and its folder of checkpoints."""
        return f"{self.group}-seed{self.seed}"

    def payload(self) -> Message:
        """Return the arguments of `touchstone.runs.job.train` as plain data."""
        conditions, overrides = self.conditions, self.spec.overrides
        return {
            "spec": str(self.spec.path),
            "profile": self.spec.profile,
            "variant": self.spec.variant,
            "hash": self.spec.hash,
            "engine": self.engine,
            "seed": self.seed,
            "device": conditions.device,
            "precision": conditions.precision,
            "mirror": _text(conditions.mirror),
            "dataset": overrides.get("dataset"),
            "checkpoint": overrides.get("checkpoint"),
            "save_dir": _text(conditions.save_dir and conditions.save_dir / f"{self.spec.profile}-{self.name}"),
            "resume": conditions.resume,
            "push_to": conditions.push_to,
            "launcher": Path(conditions.launcher[0]).name if conditions.launcher else None,
        }


@dataclass(frozen=True)
class Result:
    """The record of a trial and its path, or an outcome with the reason why there is none.

    Attributes:
        problems: what went wrong after training: the record could not be written, or the model not be published.
    """

    trial: Trial
    outcome: Outcome
    record: Record | None = None
    path: Path | None = None
    problems: tuple[str, ...] = ()


def run_trial(
    trial: Trial,
    *,
    results: Path | None,
    log: Path,
    on_message: Callable[[Message], None] | None = None,
) -> Result:
    """Run a trial in a separate process, or in the processes of its launcher, and write its record.

    Args:
        results: the folder below which the record is written; None to write no record.
        log: the file for the output of the processes.
        on_message: called with every message of the job.
    """
    launcher = trial.conditions.launcher
    run = partial(run_launched, launcher) if launcher else run_isolated
    outcome = run(
        JOB,
        payload=trial.payload(),
        log=log,
        timeout=trial.conditions.timeout or trial.spec.timeout_seconds,
        on_message=on_message,
    )
    if outcome.value is None:
        return Result(trial, outcome)
    record = Record.model_validate(outcome.value["record"])
    problem = outcome.value.get("problem")
    problems = () if problem is None else (problem,)
    if results is None:
        return Result(trial, outcome, record, problems=problems)
    try:
        return Result(trial, outcome, record, write_record(record, results), problems)
    except (RecordError, OSError) as error:
        path = Path(tempfile.mkdtemp(prefix="touchstone-record-")) / record.file_name
        write_atomically(path, record.model_dump_json(indent=2) + "\n")
        return Result(
            trial, outcome, record, path, (*problems, f"{error}\nThe record of this run was written to {path} instead")
        )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
