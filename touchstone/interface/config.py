"""The configuration of a `pytest suite/` session, and the results it has collected so far."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from touchstone.interface import options
from touchstone.interface.options import OptionError, Overrides

if TYPE_CHECKING:  # slow to import, and a session that only runs properties does not need them
    from touchstone.runs.trials import Result, Trial
    from touchstone.specs.verdict import Verdict


Mean: TypeAlias = "tuple[str, str, str, Verdict]"
"""The verdict on the mean over several seeds: (spec name, engine, description of the seeds, verdict)."""


@dataclass
class SuiteConfig:
    """The checked options of a session, its trials, and its results.

    Attributes:
        workers: number of pytest-xdist processes that run tests at the same time.
        found: results of the runs that have finished.
        means: verdicts on the means over seeds.
        problem: an error in the options that was found when the specs were read.
    """

    profile: str
    tasks: list[str]
    engines: list[str]
    seeds: tuple[int, ...]
    device: str
    precision: str
    timeout: float | None
    mirror: Path | None
    datasets: list[str]
    checkpoints: list[str]
    files: list[Path]
    results: Path
    save_dir: Path | None
    resume: bool
    push_to: str | None
    launcher: tuple[str, ...]
    workers: int
    found: list[Result] = field(default_factory=list)
    means: list[Mean] = field(default_factory=list)
    problem: str | None = None
    _trials: list[Trial] | None = None
    _logs: Path | None = None

    @classmethod
    def of(cls, config: pytest.Config) -> SuiteConfig:
        """Check the options of a session.

        Raises:
            OptionError: a value is wrong.
        """
        get = config.getoption
        if not get("spec"):  # a user's spec may define other profiles
            options.one_of(get("profile"), options.PROFILES, option="--profile", what="profile")
        device = options.resolve_device(get("device"))
        files = [Path(file).expanduser().resolve() for file in get("spec")]
        if missing := [file for file in files if not file.is_file()]:
            raise OptionError(f"--spec {missing[0]}: there is no such file")
        save = get("save")
        if get("resume") and save is None:
            raise OptionError("--resume continues from the checkpoints in --save DIR; also give --save")
        results = get("results")
        return cls(
            profile=get("profile"),
            tasks=get("task"),
            engines=get("engine"),
            seeds=options.parse_seeds(get("seeds")),
            device=device,
            precision=options.check_precision(get("precision"), device=device),
            timeout=options.parse_timeout(get("training_timeout")),
            mirror=options.parse_mirror(get("mirror")),
            datasets=get("dataset"),
            checkpoints=get("checkpoint"),
            files=files,
            results=config.rootpath / "results" if results is None else Path(results).expanduser().resolve(),
            save_dir=None if save is None else Path(save).expanduser().resolve(),
            resume=get("resume"),
            push_to=options.parse_repository(get("push_to")),
            launcher=options.parse_launch(get("launch"), device=device),
            workers=len(getattr(config.option, "tx", None) or [1]),
        )

    def trials(self) -> list[Trial]:
        """Return the trials of this session in a fixed order. Imports torch and reads the specs.

        Raises:
            OptionError: a task, variant, profile or engine does not exist, or a spec is not valid.
        """
        if self._trials is None:
            from touchstone.interface import plan
            from touchstone.runs.trials import Conditions
            from touchstone.specs.spec import SpecError

            tasks = plan.task_names()
            overrides = Overrides(
                options.parse_assignments(self.datasets, option="--dataset", tasks=tasks),
                options.parse_assignments(self.checkpoints, option="--checkpoint", tasks=tasks),
            )
            conditions = Conditions(
                device=self.device,
                precision=self.precision,
                mirror=self.mirror,
                timeout=self.timeout,
                save_dir=self.save_dir,
                resume=self.resume,
                push_to=self.push_to,
                launcher=self.launcher,
            )
            try:
                specs = plan.choose_specs(self.tasks, profile=self.profile, files=self.files)
            except SpecError as error:
                raise OptionError(str(error)) from error
            self._trials = plan.make_trials(
                specs, engines=self.engines, seeds=self.seeds, overrides=overrides, conditions=conditions
            )
            if self.push_to is not None and (n := len(self._trials)) != 1:
                raise OptionError(
                    f"--push-to {self.push_to}: a repository holds one model, but this session would train {n}; "
                    "choose one with --task, --engine and --seeds"
                )
        return self._trials

    def check_directories(self) -> None:
        """Check before training that records and checkpoints can be written.

        Raises:
            OptionError: a directory is not writable.
        """
        options.check_writable(self.results, option="--results", what="record")
        if self.save_dir is not None:
            options.check_writable(self.save_dir, option="--save", what="checkpoint")

    @property
    def logs(self) -> Path:
        """The directory for the output of runs. The output of successful runs is removed."""
        if self._logs is None:
            self._logs = Path(tempfile.mkdtemp(prefix="touchstone-"))
        return self._logs

    def remove_empty_logs(self) -> None:
        """Remove the directory unless it holds the output of failed runs."""
        if self._logs is not None and not any(self._logs.iterdir()):
            self._logs.rmdir()

    def divisions(self) -> list[str]:
        """Return a line that names the trials of the open division, if there are any. Empty before `trials()`."""
        names = dict.fromkeys(trial.spec.name for trial in self._trials or () if trial.spec.division == "open")
        return [f"open division (another recipe, to the same quality): {', '.join(names)}"] if names else []

    def header(self) -> str:
        """Summarize the session in one line."""
        threads = os.environ.get("OMP_NUM_THREADS")
        seeds = ",".join(map(str, self.seeds))
        parts = [
            f"profile {self.profile}",
            f"device {self.device}",
            f"precision {self.precision}",
            f"seed{'s' if len(self.seeds) > 1 else ''} {seeds}",
        ]
        if self.launcher:
            parts.append(f"each run started by {options.launched_by(self.launcher)}")
        if self.workers > 1:
            parts.append(f"{self.workers} runs at a time")
        if threads:
            parts.append(f"OMP_NUM_THREADS={threads}")
        return ", ".join(parts)


CONFIG = pytest.StashKey[SuiteConfig]()
