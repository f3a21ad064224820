"""`pytest suite/`: options, header, order and the summary table. What is run stands in the rooms beside this file."""

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
"""Cheap and fundamental first: who fails a property need not wait for training."""
VERSIONS = ("torch", "transformers", "datasets", "accelerate", "tokenizers")
TERMINATED = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("touchstone", "Touchstone: what is trained, where, and how it is judged")
    add = group.addoption
    add(
        "--profile",
        default="embedded",
        metavar="NAME",
        help="where data and checkpoints come from: embedded (default; offline, any machine), "
        "small (real data, a small checkpoint), course (the course's own)",
    )
    add(
        "--task",
        action="append",
        default=[],
        metavar="TASK",
        help="train this task only, or this variant of one (token-classification+first, causal-lm+key-tokens); "
        "repeatable; default: all tasks and variants of the profile but those of the open division, such as "
        "token-classification+open of the profile small: another recipe to the same quality (docs/speed.md)",
    )
    add(
        "--engine",
        action="append",
        default=[],
        metavar="NAME",
        help="train with this engine (trainer, loop, packed, or package.module:attribute for your own, see "
        "docs/your-own-engine.md); repeatable; default: trainer and loop, as in the course",
    )
    add(
        "--seeds",
        default=str(options.DEFAULT_SEED),
        metavar="LIST",
        help="the seeds to train with, such as 7 or 1,2,3 or 1-10 (default: %(default)s); "
        "with several, their mean is judged too",
    )
    add(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto (default: cuda where there is a GPU, else cpu), cpu, cuda, cuda:N",
    )
    add("--precision", default="fp32", metavar="NAME", help="fp32 (default), bf16 or fp16")
    add(
        "--mirror",
        metavar="DIR",
        help="take data sets and checkpoints from DIR/datasets/ORG/NAME and DIR/models/ORG/NAME instead of the hub",
    )
    add(
        "--dataset",
        action="append",
        default=[],
        metavar="TASK=PATH",
        help="train TASK on this data set (a folder or a file; README.md says which columns it has); no expectation "
        "applies then; repeatable",
    )
    add(
        "--checkpoint",
        action="append",
        default=[],
        metavar="TASK=PATH",
        help="train TASK from this checkpoint; no expectation applies then; repeatable",
    )
    add(
        "--spec",
        action="append",
        default=[],
        metavar="FILE",
        help="train as this TOML file says, instead of the specs that come with the suite; repeatable",
    )
    add(
        "--launch",
        metavar="CMD",
        help='train each run in the processes that this command starts, such as "torchrun --standalone '
        '--nproc-per-node 2" (docs/distributed.md)',
    )
    _add_timeout(group)
    add("--results", metavar="DIR", help="write records below this directory (default: results/ of the project)")
    add("--save", metavar="DIR", help="save a checkpoint after every epoch below this directory")
    add("--resume", action="store_true", help="go on from the checkpoints in --save DIR")
    add(
        "--push-to",
        metavar="REPO",
        help="publish each trained model with a model card on the hub as REPO (off by default)",
    )


def _add_timeout(group: pytest.OptionGroup) -> None:
    """`--timeout`, unless pytest-timeout is installed and has taken that name (for single tests) already."""
    keywords = {
        "dest": "training_timeout",
        "metavar": "TIME",
        "help": "stop a training run after this long, such as 90, 15m or 2h (default: the spec's)",
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
        pytest.exit("terminated (SIGTERM)", returncode=pytest.ExitCode.INTERRUPTED)

    if workers.distributes(config):
        config.pluginmanager.register(
            workers.Distributing(config, session=config.stash[CONFIG]), "touchstone-distributing"
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
        f"implementation under the properties: {implementation}",
        f"versions: {versions}",
    ]


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str) -> list[pytest.Item] | None:
    """With one seed there is no mean to test: that is no test, rather than a skipped one."""
    if name == "test_mean_over_seeds_is_what_it_should_be" and len(collector.config.stash[CONFIG].seeds) < 2:
        return []
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_room)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Workers collect the tests; what is wrong with the options is said once, by the session that starts them."""
    if not workers.distributes(session.config):
        return
    state = session.config.stash[CONFIG]
    try:
        state.trials()
        state.check_directories()
    except OptionError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_collection_finish(session: pytest.Session) -> None:
    state = session.config.stash[CONFIG]
    if state.problem is not None:
        raise pytest.UsageError(state.problem)
    if session.config.option.collectonly or not any(_room(item) == ROOMS.index("training") for item in session.items):
        return
    try:
        state.check_directories()
    except OptionError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Only now are the specs read, and known what is of which division."""
    return config.stash[CONFIG].divisions()


def _room(item: pytest.Item) -> int:
    """Position of the item's room; tests from elsewhere come last."""
    here = Path(__file__).parent
    if not item.path.is_relative_to(here):
        return len(ROOMS)
    room = item.path.relative_to(here).parts[0]
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
    """A trial that passed has its own line (see `test_training`), and needs no dot."""
    if report.when == "call" and report.passed and "result" in getattr(report, "found", {}):
        return "passed", "", "PASSED"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and workers.FOUND in item.stash:
        report.__dict__["found"] = item.stash[workers.FOUND]  # pytest-xdist passes a report's attributes on
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    state = config.stash.get(CONFIG, None)
    if state is None or not state.found:
        return
    from touchstone.interface import display

    reporter = terminalreporter
    colour = reporter.hasmarkup
    width = display.columns(reporter)
    reporter.section("training")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    table = display.summary_table(state.found, state.means, width=width)
    probed = [result.record for result in state.found if result.record and any(result.record.sample_outputs.values())]
    probes = {record.spec.name: record for record in probed}
    for renderable in (table, *(display.probe_table(record) for record in probes.values())):
        reporter.write(display.as_text(renderable, width=width, colour=colour, encoding=encoding) + "\n")
    for line in display.closing_lines(state.found, directory=config.invocation_params.dir):
        reporter.write_line(line)


@pytest.fixture(scope="session")
def session_state(pytestconfig: pytest.Config) -> SuiteConfig:
    """What this session was asked for and has found."""
    return pytestconfig.stash[CONFIG]
