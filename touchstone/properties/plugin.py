"""The pytest side of the properties: `--implementation`, what is not offered, and the closing line.

Loaded by `suite/conftest.py`, or by hand with `-p touchstone.properties.plugin`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest
from _pytest._code.code import ReprFileLocation, TerminalRepr
from _pytest._io import TerminalWriter
from hypothesis.errors import Flaky

from touchstone.properties import profiles
from touchstone.properties.check import Check, ids, unrepeatable
from touchstone.properties.failure import CheckFailed
from touchstone.properties.subject import DEFAULT, ImplementationError, Subject, load

SUBJECT = pytest.StashKey[Subject]()
TALLY = pytest.StashKey["Tally"]()
NOT_OFFERED = "not offered: "


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("touchstone").addoption(
        "--implementation",
        metavar="NAME",
        default=DEFAULT,
        help="what to put under the properties: package.module or package.module:object that offers any of the "
        "functions of docs/contract.md (default: %(default)s)",
    )
    profiles.register()  # before Hypothesis reads --hypothesis-profile, and before any check is defined


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()
    if config.getoption("--hypothesis-seed", None) is not None:
        profiles.draw_from_seed()
    if config.getoption("--implementation") != DEFAULT:  # say what is wrong before anything is collected
        subject_of(config)


def subject_of(config: pytest.Config) -> Subject:
    """The implementation under test, imported once.

    Raises:
        pytest.UsageError: it cannot be had.
    """
    if SUBJECT not in config.stash:
        name = config.getoption("--implementation")
        try:
            config.stash[SUBJECT] = load(name)
        except ImplementationError as error:
            raise pytest.UsageError(f"--implementation {name}: {error}") from None
    return config.stash[SUBJECT]


@pytest.fixture(scope="session")
def implementation(pytestconfig: pytest.Config) -> Subject:
    """The implementation under test."""
    return subject_of(pytestconfig)


def check_of(item: pytest.Item) -> Check | None:
    found = getattr(getattr(item, "obj", None), "check", None)
    return found if isinstance(found, Check) else None


def pytest_collection_finish(session: pytest.Session) -> None:
    tally = session.config.stash[TALLY]
    for item in session.items:
        if found := check_of(item):
            item.user_properties.append(("check", found.id))
            tally.selected[found.id] += 1
    if tally.selected:
        subject_of(session.config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if (found := check_of(item)) and (missing := found.missing(subject_of(item.config))):
        pytest.skip(f"{NOT_OFFERED}{', '.join(missing)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, Flaky) and check_of(item):
        error = unrepeatable(error)
    if isinstance(error, CheckFailed) and item.config.getoption("tbstyle") in ("auto", "short", "line"):
        path, line, _ = report.location
        report.longrepr = FailureText(error, ReprFileLocation(path, (line or 0) + 1, error.headline))
    return report


class FailureText(TerminalRepr):
    """The report of a check in place of a traceback through Hypothesis; `--tb=long` shows that all the same."""

    def __init__(self, error: CheckFailed, place: ReprFileLocation) -> None:
        self.text = str(error)
        if error.__cause__ is not None:
            self.text += f"\n\n  it was raised here:\n{_frames(error.__cause__)}"
        self.reprcrash = place

    def toterminal(self, tw: TerminalWriter) -> None:
        first, _, rest = self.text.partition("\n")
        tw.line(first, red=True, bold=True)
        tw.line(rest)


def _frames(error: BaseException) -> str:
    """The implementation's frames of a traceback, innermost last."""
    import traceback

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "suite/properties" not in frame.filename]
    return "".join(traceback.format_list(frames[-4:])).rstrip()


class Tally:
    """Counts of tests by the number of their check."""

    def __init__(self) -> None:
        self.selected: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()
        self.failed: set[str] = set()
        self.not_offered: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self.stages: dict[str, None] = {}  # that were missing, in the order they were missed

    def note(self, id: str, report: pytest.TestReport) -> None:
        if report.skipped:
            reason = reason_of(report)
            if reason.startswith(NOT_OFFERED):
                self.not_offered[id] += 1
                self.stages |= dict.fromkeys(reason.removeprefix(NOT_OFFERED).split(", "))
            else:
                self.skipped[id] = reason
        elif report.when == "call":
            self.ran[id] += 1
        if report.failed:
            self.failed.add(id)

    def line(self, name: str) -> str:
        """`contract: ran 58 of 182 checks on mypkg.adapters (...)`; a check counts as run when all its tests ran."""
        every = ids()
        whole = [id for id in every if self.ran[id] and not self.not_offered[id] and id not in self.skipped]
        none = [id for id in every if self.not_offered[id] and not self.ran[id]]
        part = [id for id in every if self.not_offered[id] and self.ran[id]]
        unselected = len(every) - len(self.selected)
        failed = [id for id in every if id in self.failed]
        remarks = [f"{len(failed)} failed: {', '.join(failed)}"] if failed else []
        if none or part:
            counts = [f"{len(none)} not offered"] if none else []
            counts += [f"{', '.join(part)} in part"] if part else []
            remarks.append(f"{', '.join(counts)}, for want of {', '.join(self.stages)}")
        remarks += [f"{id} skipped: {reason}" for id, reason in self.skipped.items()]
        remarks += [f"{unselected} not selected"] if unselected else []
        line = f"contract: ran {len(whole)} of {len(every)} checks on {name}"
        return f"{line} ({'; '.join(remarks)})" if remarks else line


def reason_of(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def pytest_report_teststatus(report: pytest.CollectReport | pytest.TestReport) -> Any:
    if isinstance(report, pytest.TestReport) and report.skipped and reason_of(report).startswith(NOT_OFFERED):
        return "not offered", "n", "NOT OFFERED"
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tally = tally_of(terminalreporter, config)
    if tally.selected:
        colour = {"red": True} if tally.failed or not tally.ran else {"green": True}
        terminalreporter.write_line(tally.line(subject_of(config).name), **colour)
        if not tally.ran:
            terminalreporter.write_line("no check was run: nothing has been said about this implementation", red=True)


def tally_of(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Tally:
    """What the reports say (they may come from other processes)."""
    tally = config.stash[TALLY]
    tally.ran.clear()
    tally.not_offered.clear()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                for id in (value for key, value in report.user_properties if key == "check"):
                    tally.selected.setdefault(str(id), 0)  # where other processes collected the tests
                    tally.note(str(id), report)
    return tally


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or session.config.option.collectonly:
        return
    tally = tally_of(reporter, session.config)
    if tally.selected and not tally.ran and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
