"""Support for `pytest suite/ -n N`: N runs at a time in pytest-xdist workers, each with its share of the cores.

Workers return their results to the main process as an attribute of the test report. All runs of one spec on one engine
go to the same worker, which judges their mean.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from touchstone.runs.isolation import Message

if TYPE_CHECKING:  # these import torch, which reads OMP_NUM_THREADS when it is loaded
    from touchstone.interface.config import Mean, SuiteConfig
    from touchstone.runs.trials import Result, Trial

FOUND = pytest.StashKey[Message]()
"""The result of a test as JSON data: first in the stash of the test item, then in its report."""


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def distributes(config: pytest.Config) -> bool:
    """Whether this is the main process of a session whose tests run in workers."""
    return not is_worker(config) and getattr(config.option, "dist", "no") != "no"


def share_cores(config: pytest.Config) -> None:
    """Limit the threads of a worker to its share of the cores. Call it before torch is imported."""
    if is_worker(config):
        from touchstone.records.machine import WORKERS, usable_threads

        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_threads() // int(os.environ[WORKERS]))))


def group_of(nodeid: str) -> str:
    """Return the group of a test. A group runs in one worker: the runs of a spec on an engine, and their mean."""
    found = re.search(r"/test_training\.py::\w+\[(.+?)(-seed\d+)?\]$", nodeid)
    return nodeid if found is None else found[1]


def to_json(result: Result) -> Message:
    """Convert a result to JSON data, to pass it between processes."""
    outcome, failure = result.outcome, result.outcome.failure
    return {
        "trial": result.trial.name,
        "failure": None if failure is None else asdict(failure),
        "seconds": outcome.seconds,
        "peak_bytes": outcome.peak_bytes,
        "log": str(outcome.log),
        "record": None if result.record is None else result.record.model_dump_json(),
        "path": None if result.path is None else str(result.path),
        "problems": list(result.problems),
    }


def from_json(data: Message, trials: Sequence[Trial]) -> Result:
    """Restore a result from the data that `to_json` made. `trials` contains its trial."""
    from touchstone.records.record import Record
    from touchstone.runs.isolation import Failure, Outcome
    from touchstone.runs.trials import Result

    failure = None if data["failure"] is None else Failure(**data["failure"])
    record = None if data["record"] is None else Record.model_validate_json(data["record"])
    return Result(
        next(trial for trial in trials if trial.name == data["trial"]),
        Outcome(None, failure, data["seconds"], data["peak_bytes"], Path(data["log"])),
        record,
        None if data["path"] is None else Path(data["path"]),
        tuple(data["problems"]),
    )


def means_to_json(means: Sequence[Mean]) -> list[Message]:
    return [{"of": list(of), "verdict": verdict.model_dump(mode="json")} for *of, verdict in means]


def receive(config: SuiteConfig, data: Message) -> Result | None:
    """Add what a worker found to the session. Returns the result of a run, if the data holds one."""
    if not data:
        return None
    from touchstone.specs.verdict import Verdict

    for mean in data.get("means", []):
        name, engine, seeds = mean["of"]
        config.means.append((name, engine, seeds, Verdict.model_validate(mean["verdict"])))
    if "result" not in data:
        return None
    result = from_json(data["result"], config.trials())
    config.found.append(result)
    return result


class Distributing:
    """The pytest plugin of the main process: distributes tests to workers and collects their results."""

    def __init__(self, config: pytest.Config, *, suite: SuiteConfig) -> None:
        self.config = config
        self.suite = suite

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Give the next group to the next free worker. (pytest-xdist's own group marks have no effect in pytest 9.)"""
        if config.option.dist != "load":
            return None
        from xdist.scheduler import LoadScopeScheduling

        class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
            def _split_scope(self, nodeid: str) -> str:
                return group_of(nodeid)

        return ByGroup(config, log)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        result = receive(self.suite, getattr(report, "found", {}))
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if result is None or reporter is None or self.config.get_verbosity() < 0:
            return
        from touchstone.interface.display import as_text, result_line, terminal_width

        reporter.ensure_newline()
        reporter.write_line(as_text(result_line(result), width=terminal_width(reporter), colour=reporter.hasmarkup))
