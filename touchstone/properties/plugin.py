"""The pytest plugin of the checks: `--implementation`, Hypothesis profiles, skipped checks and the closing line.

`suite/conftest.py` loads it. Without it, use `-p touchstone.properties.plugin`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest
from _pytest._code.code import ReprFileLocation, TerminalRepr
from _pytest._io import TerminalWriter
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.errors import Flaky

from touchstone.properties.check import Check, ids, unrepeatable
from touchstone.properties.failure import CheckFailed
from touchstone.properties.subject import DEFAULT, ImplementationError, Subject, load

SUBJECT = pytest.StashKey[Subject]()
TALLY = pytest.StashKey["Tally"]()
NOT_OFFERED = "not offered: "

EXAMPLES = {"quick": 60, "ci": 300, "deep": 3000}
"""Number of examples by Hypothesis profile: `quick` for every run, `ci` for a change, `deep` for a night."""
DEFAULT_PROFILE = "quick"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("touchstone").addoption(
        "--implementation",
        metavar="NAME",
        default=DEFAULT,
        help="the implementation to check: package.module or package.module:object that offers any functions of "
        "docs/contract.md (default: %(default)s)",
    )
    register_profiles()  # before Hypothesis reads --hypothesis-profile, and before any check is defined


def register_profiles() -> None:
    """Register our own Hypothesis profiles and load the default one.

    Neither the speed of the machine nor an environment variable changes what is run: there is no deadline and no
    database, and all profiles draw the same examples every time. `--hypothesis-seed N` draws others.
    """
    for name, examples in EXAMPLES.items():
        settings.register_profile(
            name,
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            print_blob=False,  # the report has a line to paste that does not need Hypothesis
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=[HealthCheck.too_slow],  # measures the machine, not the test
        )
    settings.load_profile(DEFAULT_PROFILE)


def draw_from_seed() -> None:
    """Let `--hypothesis-seed` decide. Hypothesis would ignore it under `derandomize`."""
    name = f"{settings.get_current_profile_name()}-seeded"
    settings.register_profile(name, settings.default, derandomize=False)
    settings.load_profile(name)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()
    if config.getoption("--hypothesis-seed", None) is not None:
        draw_from_seed()
    if config.getoption("--implementation") != DEFAULT:  # report a wrong name before anything is collected
        subject_of(config)


def subject_of(config: pytest.Config) -> Subject:
    """Return the implementation under test. It is imported once.

    Raises:
        pytest.UsageError: it cannot be imported.
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
    """Return the check of a test, `None` if it is another kind of test."""
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
    """The report of a check instead of a traceback through Hypothesis, which `--tb=long` still shows."""

    def __init__(self, error: CheckFailed, place: ReprFileLocation) -> None:
        self.text = str(error)
        if error.__cause__ is not None:
            self.text += f"\n\n  raised here:\n{_frames(error.__cause__)}"
        self.reprcrash = place

    def toterminal(self, tw: TerminalWriter) -> None:
        first, _, rest = self.text.partition("\n")
        tw.line(first, red=True, bold=True)
        tw.line(rest)


def _frames(error: BaseException) -> str:
    """Return the frames of the implementation in a traceback, innermost last."""
    import traceback

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "suite/properties" not in frame.filename]
    return "".join(traceback.format_list(frames[-4:])).rstrip()


class Tally:
    """Counts of tests by the id of their check."""

    def __init__(self) -> None:
        self.selected: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()
        self.failed: set[str] = set()
        self.not_offered: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self.stages: dict[str, None] = {}  # missing ones, in the order in which they were found

    def note(self, id: str, report: pytest.TestReport) -> None:
        """Count one report of a test of check `id`."""
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
        """Return `contract: ran 58 of 182 checks on mypkg.adapters (...)`. A check ran if all its tests did."""
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
            remarks.append(f"{', '.join(counts)}, missing: {', '.join(self.stages)}")
        remarks += [f"{id} skipped: {reason}" for id, reason in self.skipped.items()]
        remarks += [f"{unselected} not selected"] if unselected else []
        line = f"contract: ran {len(whole)} of {len(every)} checks on {name}"
        return f"{line} ({'; '.join(remarks)})" if remarks else line


def reason_of(report: pytest.TestReport) -> str:
    """Return why a test was skipped."""
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
            terminalreporter.write_line("no check was run: this says nothing about the implementation", red=True)


def tally_of(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Tally:
    """Count all reports, including those of other processes."""
    tally = config.stash[TALLY]
    tally.ran.clear()
    tally.not_offered.clear()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                for id in (value for key, value in report.user_properties if key == "check"):
                    tally.selected.setdefault(str(id), 0)  # other processes may have collected the tests
                    tally.note(str(id), report)
    return tally


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or session.config.option.collectonly:
        return
    tally = tally_of(reporter, session.config)
    if tally.selected and not tally.ran and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
