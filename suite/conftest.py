"""`pytest suite/`: its options, header, order of tests and summary table."""

from __future__ import annotations

import importlib.metadata
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from touchstone.interface import options, workers
from touchstone.interface.config import CONFIG, SuiteConfig
from touchstone.interface.options import OptionError

pytest_plugins = ["touchstone.properties.plugin"]

ROOMS = ("properties", "reproducibility", "training")
"""The directories of tests in the order in which they run: fast and fundamental tests first."""
VERSIONS = ("torch", "transformers", "datasets", "accelerate", "tokenizers")
TERMINATED = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("touchstone", "Touchstone: what to train, where, and how to judge it")
    add = group.addoption
    add(
        "--profile",
        default="embedded",
        metavar="NAME",
        help="source of data and checkpoints: embedded (default: toy data, offline, any machine), "
        "small (real data, small checkpoints), course (the data and checkpoints of the course)",
    )
    add(
        "--task",
        action="append",
        default=[],
        metavar="TASK",
        help="train only this task, or this variant of a task (token-classification+first, causal-lm+key-tokens); "
        "repeatable. Default: all tasks and variants of the profile except those of the open division, which use "
        "another recipe and must be named, such as token-classification+open in the profile small (docs/speed.md)",
    )
    add(
        "--engine",
        action="append",
        default=[],
        metavar="NAME",
        help="train everything with this engine (trainer, loop, packed, or package.module:attribute for your own, see "
        "docs/your-own-engine.md); repeatable. Default: trainer trains everything, and loop also trains "
        "token-classification and translation. Use --engine trainer --engine loop to train everything with both",
    )
    add(
        "--seeds",
        default=str(options.DEFAULT_SEED),
        metavar="LIST",
        help="train with each of these seeds, such as 7 or 1,2,3 or 1-10 (default: %(default)s); "
        "with several seeds, their mean is judged as well",
    )
    add(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto (default: cuda if there is a GPU, else cpu), cpu, cuda, cuda:N",
    )
    add("--precision", default="fp32", metavar="NAME", help="fp32 (default), bf16 or fp16")
    add(
        "--mirror",
        metavar="DIR",
        help="read data sets and checkpoints from DIR/datasets/ORG/NAME and DIR/models/ORG/NAME, not from the hub",
    )
    add(
        "--dataset",
        action="append",
        default=[],
        metavar="TASK=PATH",
        help="train TASK on this data set, a directory or a file (docs/running.md lists its columns); "
        "expectations do not apply; repeatable",
    )
    add(
        "--checkpoint",
        action="append",
        default=[],
        metavar="TASK=PATH",
        help="train TASK from this checkpoint; expectations do not apply; repeatable",
    )
    add(
        "--spec",
        action="append",
        default=[],
        metavar="FILE",
        help="train the spec in this TOML file instead of the suite's specs; repeatable",
    )
    add(
        "--launch",
        metavar="CMD",
        help='train each run in the processes that this command starts, such as "torchrun --standalone '
        '--nproc-per-node 2" (docs/distributed.md)',
    )
    _add_timeout(group)
    add(
        "--audit",
        action="store_true",
        help="audit the trainer of each trial (docs/audit.md) instead of training it; only for the engine trainer",
    )
    add("--results", metavar="DIR", help="directory for records (default: results/ in the project)")
    add("--save", metavar="DIR", help="save a checkpoint after every epoch to this directory")
    add("--resume", action="store_true", help="continue from the checkpoints in --save DIR")
    add(
        "--push-to",
        metavar="REPO",
        help="publish the trained model with a model card on the hub as REPO (off by default)",
    )


def _add_timeout(group: pytest.OptionGroup) -> None:
    """Add `--timeout`, or only `--training-timeout` if pytest-timeout has taken the short name (for single tests)."""
    keywords = {
        "dest": "training_timeout",
        "metavar": "TIME",
        "help": "stop a training run after this time, such as 90, 15m or 2h (default: the spec's)",
    }
    try:
        group.addoption("--training-timeout", "--timeout", **keywords)
    except ValueError:
        group.addoption("--training-timeout", **keywords)


def pytest_configure(config: pytest.Config) -> None:
    workers.share_cores(config)
    try:
        config.stash[CONFIG] = SuiteConfig.of(config)
    except OptionError as error:
        raise pytest.UsageError(str(error)) from error

    def terminated(number: int, frame: FrameType | None) -> None:
        # Not pytest.exit: its exception is an `Exception`, which a check takes for an error of the implementation.
        raise KeyboardInterrupt("terminated (SIGTERM)")

    if workers.distributes(config):
        config.pluginmanager.register(
            workers.Distributing(config, suite=config.stash[CONFIG]), "touchstone-distributing"
        )
    config.stash[TERMINATED] = signal.signal(signal.SIGTERM, terminated)


def pytest_unconfigure(config: pytest.Config) -> None:
    if CONFIG in config.stash:
        config.stash[CONFIG].remove_empty_logs()
    if TERMINATED in config.stash:
        signal.signal(signal.SIGTERM, config.stash[TERMINATED])


def pytest_report_header(config: pytest.Config) -> list[str]:
    versions = "  ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    implementation = config.getoption("--implementation")
    return [
        f"touchstone: {config.stash[CONFIG].header()}",
        f"implementation checked by the properties: {implementation}",
        f"versions: {versions}",
    ]


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str) -> list[pytest.Item] | None:
    """With one seed there is no mean, so do not collect the test of the mean. With --audit nothing is trained."""
    trains = name in ("test_training_reaches_the_expected_metrics", "test_mean_over_seeds_is_as_expected")
    audits = name == "test_the_audit_finds_no_fault"
    if (trains or audits) and audits != collector.config.getoption("--audit"):
        return []
    if name == "test_mean_over_seeds_is_as_expected" and len(collector.config.stash[CONFIG].seeds) < 2:
        return []
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_room)


def pytest_sessionstart(session: pytest.Session) -> None:
    """With workers, the main process does not collect tests: check the options here, so that errors are shown once."""
    if not workers.distributes(session.config):
        return
    suite = session.config.stash[CONFIG]
    try:
        suite.trials()
        suite.check_directories()
    except OptionError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_collection_finish(session: pytest.Session) -> None:
    suite = session.config.stash[CONFIG]
    if suite.problem is not None:
        raise pytest.UsageError(suite.problem)
    if session.config.option.collectonly or not any(_room(item) == ROOMS.index("training") for item in session.items):
        return
    try:
        suite.check_directories()
    except OptionError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Name the trials of the open division. Their specs have been read only now."""
    return config.stash[CONFIG].divisions()


def _room(item: pytest.Item) -> int:
    """Return the position of the item's directory in ROOMS; other tests come last."""
    here = Path(__file__).parent
    if not item.path.is_relative_to(here):
        return len(ROOMS)
    room = item.path.relative_to(here).parts[0]
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
    """Print no dot for a trial that passed: `test_training` has printed its line."""
    if report.when == "call" and report.passed and "result" in getattr(report, "found", {}):
        return "passed", "", "PASSED"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and workers.FOUND in item.stash:
        report.__dict__["found"] = item.stash[workers.FOUND]  # pytest-xdist sends it to the main process
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    suite = config.stash.get(CONFIG, None)
    if suite is None or not suite.found:
        return
    from touchstone.interface import display

    reporter = terminalreporter
    colour = reporter.hasmarkup
    width = display.terminal_width(reporter)
    reporter.section("training")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    table = display.summary_table(suite.found, suite.means, width=width)
    records = [result.record for result in suite.found if result.record and any(result.record.sample_outputs.values())]
    last_of_each_spec = {record.spec.name: record for record in records}
    for renderable in (table, *map(display.sample_outputs_table, last_of_each_spec.values())):
        reporter.write(display.as_text(renderable, width=width, colour=colour, encoding=encoding) + "\n")
    for line in display.closing_lines(suite.found, directory=config.invocation_params.dir):
        reporter.write_line(line)


@pytest.fixture(scope="session")
def suite_config(pytestconfig: pytest.Config) -> SuiteConfig:
    """The configuration and the results of this session."""
    return pytestconfig.stash[CONFIG]
