"""Fixtures of the throughput tests: the data and the timer. At the end of the session, a table and a record."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import datasets
import pytest
from rich.table import Table

from touchstone.files import RecordError
from touchstone.interface import workers
from touchstone.interface.config import CONFIG
from touchstone.records.machine import describe_hardware, describe_software, suite_version
from touchstone.records.timing import Audits, AuditTime, Speed, Stage, TaskSpeed, Throughput, WatchTime
from touchstone.suite.throughput.data import Data
from touchstone.suite.throughput.found import AUDITS, SPEEDS, WATCHED
from touchstone.suite.throughput.measuring import STAGES, problems, time_in_turns

DATA = pytest.StashKey[Data]()
FOUND = pytest.StashKey[list[Stage]]()
STARTED = pytest.StashKey[datetime]()

TimeStage = Callable[..., None]


def pytest_configure(config: pytest.Config) -> None:
    """Hide the table of pytest-benchmark (`--benchmark-verbose` shows it), and refuse to run in parallel."""
    config.option.benchmark_quiet = True
    if workers.distributes(config) or workers.is_worker(config):
        raise pytest.UsageError("suite/throughput: cannot measure times while other tests run in parallel; omit -n")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("touchstone").addoption(
        "--rounds", type=int, default=3, metavar="N", help="number of rounds of training steps per engine (default: 3)"
    )


@pytest.fixture(scope="session", autouse=True)
def started(pytestconfig: pytest.Config) -> None:
    pytestconfig.stash[STARTED] = datetime.now(timezone.utc)


@pytest.fixture(scope="session")
def data(pytestconfig: pytest.Config) -> Data:
    """The data that the specs of the profile declare."""
    datasets.disable_progress_bars()
    suite = pytestconfig.stash[CONFIG]
    pytestconfig.stash[DATA] = Data(suite.profile, mirror=suite.mirror)
    return pytestconfig.stash[DATA]


@pytest.fixture
def time_stage(benchmark: Any, pytestconfig: pytest.Config) -> TimeStage:
    """Time a stage, keep the result for the table, and check it."""

    def run(name: str, **arguments: Any) -> None:
        stage = time_in_turns(benchmark, name, **arguments)
        pytestconfig.stash.setdefault(FOUND, []).append(stage)
        if found := problems(stage):
            pytest.fail("\n".join(found), pytrace=False)

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    from touchstone.interface.display import as_text, terminal_width
    from touchstone.suite.throughput.table import audit_lines, speed_table, table

    reporter = terminalreporter
    width = terminal_width(reporter)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"

    def show(made: Table) -> None:
        reporter.write(as_text(made, width=width, colour=reporter.hasmarkup, encoding=encoding) + "\n")

    if stages := config.stash.get(FOUND, []):
        reporter.section("throughput")
        data = config.stash[DATA]
        show(table(stages))
        for task, what in data.read.items():
            reporter.write_line(f"{task}: {what}")
        reporter.write_line(_record(stages, data=data, config=config))
    if speeds := config.stash.get(SPEEDS, []):
        reporter.section("engines")
        show(speed_table(speeds))
        reporter.write_line(_record_speeds(speeds, config=config))
    audits, watch = config.stash.get(AUDITS, []), config.stash.get(WATCHED, None)
    if audits or watch:
        reporter.section("audits")
        for line in audit_lines(audits, watch):
            reporter.write_line(line)
        reporter.write_line(_record_audits(audits, watch, config=config))


def _record_audits(audits: list[AuditTime], watch: WatchTime | None, *, config: pytest.Config) -> str:
    """Write the record of the audits. Returns a line that says where it is, or why there is none."""
    if watch is None or len(audits) < 2:
        return "not recorded: a record needs test_audit.py and test_watch.py"
    record = Audits(audits=tuple(audits), watch=watch, **_circumstances(config))
    return _written(lambda: record.write(_results(config)))


def _record_speeds(speeds: list[TaskSpeed], *, config: pytest.Config) -> str:
    """Write the record of the engines' speed. Returns a line that says where it is, or why there is none."""
    record = Speed(tasks=tuple(speeds), **_circumstances(config))
    return _written(lambda: record.write(_results(config)))


def _record(stages: list[Stage], *, data: Data, config: pytest.Config) -> str:
    """Write the record of the stages. Returns a line that says where it is, or why there is none."""
    if missing := [name for name in STAGES if name not in {stage.name for stage in stages}]:
        return f"not recorded: a record needs all stages; not timed: {', '.join(missing)}"
    if any(len(stage.ours.seconds) < 2 for stage in stages):
        return "not recorded: benchmarks are disabled, so nothing was timed"
    record = Throughput(data=data.read, stages=tuple(stages), **_circumstances(config))
    return _written(lambda: record.write(_results(config)))


def _circumstances(config: pytest.Config) -> dict[str, Any]:
    """Return the fields that all records share: profile, machine, software and times."""
    return {
        "profile": config.stash[CONFIG].profile,
        "hardware": describe_hardware("cpu"),
        "software": describe_software(),
        "suite": suite_version(),
        "started": config.stash[STARTED],
        "finished": datetime.now(timezone.utc),
    }


def _results(config: pytest.Config) -> Path:
    return config.stash[CONFIG].results


def _written(write: Callable[[], Path]) -> str:
    try:
        return f"record: {write()}"
    except RecordError as error:
        return f"not recorded: {error}"
