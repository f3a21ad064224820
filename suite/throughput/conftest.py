"""The data, the stopwatch, and at the end one table and one record."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import pytest
from rich.table import Table

from touchstone.files import RecordError
from touchstone.interface import workers
from touchstone.interface.config import CONFIG
from touchstone.records.machine import describe_hardware, describe_software, suite_version
from touchstone.records.timing import Speed, Stage, TaskSpeed, Throughput
from touchstone.suite.throughput.data import Data
from touchstone.suite.throughput.measuring import STAGES, problems, race

DATA = pytest.StashKey[Data]()
FOUND = pytest.StashKey[list[Stage]]()
SPEEDS = pytest.StashKey[list[TaskSpeed]]()
STARTED = pytest.StashKey[datetime]()

Timed = Callable[..., None]


def pytest_configure(config: pytest.Config) -> None:
    """One table is enough: pytest-benchmark's own is shown where it is asked for (`--benchmark-verbose`)."""
    config.option.benchmark_quiet = True
    if workers.distributes(config) or workers.is_worker(config):
        raise pytest.UsageError("suite/throughput with -n: timings beside other tests mean nothing: leave -n away")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("touchstone").addoption(
        "--rounds", type=int, default=3, metavar="N", help="of training steps of each engine in turn (default: 3)"
    )


@pytest.fixture(scope="session", autouse=True)
def started(pytestconfig: pytest.Config) -> None:
    pytestconfig.stash[STARTED] = datetime.now(UTC)


@pytest.fixture(scope="session")
def data(pytestconfig: pytest.Config) -> Data:
    """What the profile's specs declare."""
    datasets.disable_progress_bars()
    session = pytestconfig.stash[CONFIG]
    pytestconfig.stash[DATA] = Data(session.profile, mirror=session.mirror)
    return pytestconfig.stash[DATA]


@pytest.fixture
def timed(benchmark: Any, pytestconfig: pytest.Config) -> Timed:
    """`race`, whose result is kept for the table and judged."""

    def run(name: str, **arguments: Any) -> None:
        stage = race(benchmark, name, **arguments)
        pytestconfig.stash.setdefault(FOUND, []).append(stage)
        if found := problems(stage):
            pytest.fail("\n".join(found), pytrace=False)

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    from touchstone.interface.display import as_text, terminal_width
    from touchstone.suite.throughput.table import speed_table, table

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


def _record_speeds(speeds: list[TaskSpeed], *, config: pytest.Config) -> str:
    """Writes them, and says where, or why not."""
    record = Speed(tasks=tuple(speeds), **_circumstances(config))
    return _written(lambda: record.write(_results(config)))


def _record(stages: list[Stage], *, data: Data, config: pytest.Config) -> str:
    """Writes it, and says where, or why not."""
    if missing := [name for name in STAGES if name not in {stage.name for stage in stages}]:
        return f"not recorded: a record has all stages, and {', '.join(missing)} were not timed"
    if any(len(stage.ours.seconds) < 2 for stage in stages):
        return "not recorded: benchmarks were disabled, and nothing was timed"
    record = Throughput(data=data.read, stages=tuple(stages), **_circumstances(config))
    return _written(lambda: record.write(_results(config)))


def _circumstances(config: pytest.Config) -> dict[str, Any]:
    """What was timed where, when and with what."""
    return {
        "profile": config.stash[CONFIG].profile,
        "hardware": describe_hardware("cpu"),
        "software": describe_software(),
        "suite": suite_version(),
        "started": config.stash[STARTED],
        "finished": datetime.now(UTC),
    }


def _results(config: pytest.Config) -> Path:
    return config.stash[CONFIG].results


def _written(write: Callable[[], Path]) -> str:
    try:
        return f"record: {write()}"
    except RecordError as error:
        return f"not recorded: {error}"
