"""What one `pytest suite/` session was asked for and what it has found so far."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from touchstone.interface import options
from touchstone.interface.options import OptionError, Overrides

if TYPE_CHECKING:  # both import torch, which a session of properties alone may not need
    from touchstone.runs.trials import Result, Trial
    from touchstone.specs.verdict import Verdict


Mean: TypeAlias = "tuple[str, str, str, Verdict]"
"""Of several seeds: the spec's name, the engine, the seeds in words, and what their mean says."""


@dataclass
class SuiteConfig:
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
    """Processes of pytest-xdist's that run tests at the same time."""
    found: list[Result] = field(default_factory=list)
    means: list[Mean] = field(default_factory=list)
    problem: str | None = None
    """What is wrong with the options as far as only the specs can tell."""
    _trials: list[Trial] | None = None
    _logs: Path | None = None

    @classmethod
    def of(cls, config: pytest.Config) -> SuiteConfig:
        """Raises OptionError: a value that cannot be meant."""
        get = config.getoption
        if not get("spec"):  # a spec of one's own may have profiles of its own
            options.one_of(get("profile"), options.PROFILES, option="--profile", what="profile")
        device = options.resolve_device(get("device"))
        files = [Path(file).expanduser().resolve() for file in get("spec")]
        if missing := [file for file in files if not file.is_file()]:
            raise OptionError(f"--spec {missing[0]}: there is no such file")
        save = get("save")
        if get("resume") and save is None:
            raise OptionError("--resume: goes on from the checkpoints in --save DIR; name that directory too")
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
        """In a fixed order. Imports torch and reads the specs.

        Raises:
            OptionError: what is asked for does not exist.
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
                specs,
                engines=plan.choose_engines(self.engines),
                seeds=self.seeds,
                named=self.tasks,
                overrides=overrides,
                conditions=conditions,
            )
            if self.push_to is not None and (n := len(self._trials)) != 1:
                raise OptionError(
                    f"--push-to {self.push_to}: one repository holds one model, and this would train {n}; "
                    "choose one with --task, --engine and --seeds"
                )
        return self._trials

    def check_directories(self) -> None:
        """Hours of training must not end in a folder that takes no record, or no checkpoint.

        Raises:
            OptionError: one that cannot be written to.
        """
        options.check_writable(self.results, option="--results", what="record")
        if self.save_dir is not None:
            options.check_writable(self.save_dir, option="--save", what="checkpoint")

    @property
    def logs(self) -> Path:
        """A directory for the output of this session's runs. Those of runs that went well are removed."""
        if self._logs is None:
            self._logs = Path(tempfile.mkdtemp(prefix="touchstone-"))
        return self._logs

    def remove_empty_logs(self) -> None:
        """Leave nothing behind but the output of runs that failed."""
        if self._logs is not None and not any(self._logs.iterdir()):
            self._logs.rmdir()

    def divisions(self) -> list[str]:
        """A line where something of the open division is to be trained; none before the specs are read."""
        names = dict.fromkeys(trial.spec.name for trial in self._trials or () if trial.spec.division == "open")
        return [f"open division (another recipe, to the same quality): {', '.join(names)}"] if names else []

    def header(self) -> str:
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
