"""`pytest suite/ -n N`: N runs at a time, each in a process of pytest-xdist's with its share of the machine's cores.

What a worker finds, the session that prints hears of as an attribute of the test's report. Runs of one spec and engine
stay with one worker, which judges their mean.
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

if TYPE_CHECKING:  # these import torch, which reads OMP_NUM_THREADS as it is loaded
    from touchstone.interface.config import Mean, SuiteConfig
    from touchstone.runs.trials import Result, Trial

FOUND = pytest.StashKey[Message]()
"""What a test found, in plain data: on the test's own stash, then in its report."""


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def distributes(config: pytest.Config) -> bool:
    """Whether this session leaves its tests to workers."""
    return not is_worker(config) and getattr(config.option, "dist", "no") != "no"


def share_cores(config: pytest.Config) -> None:
    """In a worker, before torch is loaded: two threads on one core wait for each other most of the time."""
    if is_worker(config):
        from touchstone.records.machine import WORKERS, usable_threads

        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_threads() // int(os.environ[WORKERS]))))


def group_of(nodeid: str) -> str:
    """Tests of one group are one worker's: the runs of a spec on an engine, and their mean. Others are their own."""
    found = re.search(r"/test_training\.py::\w+\[(.+?)(-seed\d+)?\]$", nodeid)
    return nodeid if found is None else found[1]


def plain(result: Result) -> Message:
    """A result as data that passes between processes."""
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


def result_of(data: Message, trials: Sequence[Trial]) -> Result:
    """The result that `plain` took apart, of one of these trials."""
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


def plain_means(means: Sequence[Mean]) -> list[Message]:
    return [{"of": list(of), "verdict": verdict.model_dump(mode="json")} for *of, verdict in means]


def hear(session: SuiteConfig, data: Message) -> Result | None:
    """Note what a worker found; the result, if it is one."""
    if not data:
        return None
    from touchstone.specs.verdict import Verdict

    for mean in data.get("means", []):
        name, engine, seeds = mean["of"]
        session.means.append((name, engine, seeds, Verdict.model_validate(mean["verdict"])))
    if "result" not in data:
        return None
    result = result_of(data["result"], session.trials())
    session.found.append(result)
    return result


class Distributing:
    """In a session that leaves its tests to workers: who gets which, and what they found, as they report it."""

    def __init__(self, config: pytest.Config, *, session: SuiteConfig) -> None:
        self.config = config
        self.session = session

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """One group after the other to whoever is free. (pytest-xdist's marks of groups do nothing in pytest 9.)"""
        if config.option.dist != "load":
            return None
        from xdist.scheduler import LoadScopeScheduling

        class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
            def _split_scope(self, nodeid: str) -> str:
                return group_of(nodeid)

        return ByGroup(config, log)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        result = hear(self.session, getattr(report, "found", {}))
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if result is None or reporter is None or self.config.get_verbosity() < 0:
            return
        from touchstone.interface.display import as_text, columns, result_line

        reporter.ensure_newline()
        reporter.write_line(as_text(result_line(result), width=columns(reporter), colour=reporter.hasmarkup))
