"""The pytest plugin of the checks: `--implementation`, Hypothesis profiles, skipped checks and the closing line.

`suite/conftest.py` loads it. Without it, use `-p touchstone.properties.plugin`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest._code.code import ReprFileLocation, TerminalRepr
from _pytest._io import TerminalWriter
from hypothesis import settings

from touchstone.properties.check import Check, Verdict, hypothesis_settings, ids, judge
from touchstone.properties.failure import CheckFailed
from touchstone.properties.known import KnownError, known_failures
from touchstone.properties.outcome import Outcome, Status, Summary
from touchstone.properties.shapes import SHAPES
from touchstone.properties.subject import DEFAULT, ImplementationError, Subject, load, pointers

SUBJECT = pytest.StashKey[Subject]()
VERDICT = pytest.StashKey[Verdict]()
KNOWN = pytest.StashKey[dict[str, str]]()
MARKS: dict[Status, str] = {"not offered": "not offered: ", "undecided": "not judged: "}
"""How the reasons of skipped tests begin."""

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
    parser.getgroup("touchstone").addoption(
        "--as",
        dest="shape",
        metavar="SHAPE",
        default="",
        help=f"what --implementation names, if it is no module with functions of the contract: {', '.join(SHAPES)}",
    )
    parser.getgroup("touchstone").addoption(
        "--strict-checks",
        action="store_true",
        help="count every failed check; without it, an implementation other than the reference fails only if a result "
        "is wrong, not if it accepts invalid input or is not pure",
    )
    parser.getgroup("touchstone").addoption(
        "--known",
        metavar="FILE",
        help="a TOML file of checks that are known to fail, with reasons (docs/contract.md)",
    )
    register_profiles()  # before Hypothesis reads --hypothesis-profile, and before any check is defined


def register_profiles() -> None:
    """Register our own Hypothesis profiles and load the default one.

    Neither the speed of the machine nor an environment variable changes what is run: there is no deadline and no
    database, and all profiles draw the same examples every time. `--hypothesis-seed N` draws others.
    """
    for name, examples in EXAMPLES.items():
        settings.register_profile(name, hypothesis_settings(examples, shrink=True, derandomize=True))
    settings.load_profile(DEFAULT_PROFILE)


def draw_from_seed() -> None:
    """Let `--hypothesis-seed` decide. Hypothesis would ignore it under `derandomize`."""
    name = f"{settings.get_current_profile_name()}-seeded"
    settings.register_profile(name, settings.default, derandomize=False)
    settings.load_profile(name)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
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
            config.stash[SUBJECT] = subject = load(name, shape=config.getoption("shape"))
            given = config.getoption("--known")
            config.stash[KNOWN] = known_failures(subject.module, Path(given) if given else None)
        except ImplementationError as error:
            raise pytest.UsageError(f"--implementation {name}: {error}") from None
        except KnownError as error:
            raise pytest.UsageError(f"--known: {error}") from None
    return config.stash[SUBJECT]


@pytest.fixture(scope="session")
def implementation(pytestconfig: pytest.Config) -> Subject:
    """The implementation under test."""
    return subject_of(pytestconfig)


def is_strict(config: pytest.Config) -> bool:
    """Return whether refusals and form count. They always do for the reference."""
    return bool(config.getoption("--strict-checks")) or config.getoption("--implementation") == DEFAULT


def check_of(item: pytest.Item) -> Check | None:
    """Return the check of a test, `None` if it is another kind of test."""
    found = getattr(getattr(item, "obj", None), "check", None)
    return found if isinstance(found, Check) else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Put the number of a check into the name of its test: `test_...[A6]`, so that `-k A6` selects it."""
    found = getattr(metafunc.function, "check", None)
    if isinstance(found, Check):
        metafunc.parametrize("implementation", [found.id], indirect=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    checks = [(item, found) for item in session.items if (found := check_of(item))]
    for item, found in checks:
        item.user_properties += [("check", found.id), ("kind", found.kind)]
    if checks:
        subject_of(session.config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if (found := check_of(item)) and (missing := found.missing(subject_of(item.config))):
        pytest.skip(f"{MARKS['not offered']}{', '.join(missing)}")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    found = check_of(pyfuncitem)
    if found is None:
        return None
    subject = subject_of(pyfuncitem.config)
    verdict = judge(found, subject, lambda: pyfuncitem.obj(implementation=subject))
    if verdict.repeated:
        pyfuncitem.user_properties.append(("repeats", " ".join(verdict.repeated)))
    if verdict.failures:
        pyfuncitem.stash[VERDICT] = verdict
        first = verdict.failures[0]
        pyfuncitem.user_properties += [("failed", first.kind), ("headline", first.headline), ("paste", first.paste)]
        raise verdict.failures[0]
    if verdict.undecided:
        pytest.skip(f"{MARKS['undecided']}{verdict.undecided}")
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    verdict = item.stash.get(VERDICT, None)
    if verdict is None or call.when != "call":
        return report
    first = verdict.failures[0]
    if item.config.getoption("tbstyle") in ("auto", "short", "line"):
        path, line, _ = report.location
        place = ReprFileLocation(path, (line or 0) + 1, first.headline)
        report.longrepr = FailureText(verdict.failures, place)
    known = item.config.stash[KNOWN].get(first.headline.partition(":")[0])
    if known is not None:
        report.user_properties.append(("known", known))
    if known is not None or (first.kind != "result" and not is_strict(item.config)):
        report.outcome = "skipped"  # as pytest does with an expected failure: it is shown, and does not count
        report.wasxfail = known or "this does not count without --strict"
    return report


class FailureText(TerminalRepr):
    """The reports of a check instead of a traceback through Hypothesis, which `--tb=long` still shows."""

    def __init__(self, failures: Sequence[CheckFailed], place: ReprFileLocation) -> None:
        self.texts = []
        for failure in failures:
            frames = f"\n\n  raised here:\n{_frames(failure.__cause__)}" if failure.__cause__ is not None else ""
            self.texts.append(f"{failure}{frames}")
        self.reprcrash = place

    def toterminal(self, tw: TerminalWriter) -> None:
        for number, text in enumerate(self.texts):
            first, _, rest = text.partition("\n")
            tw.line(f"\nand {first}" if number else first, red=True, bold=True)
            tw.line(rest)


def _frames(error: BaseException) -> str:
    """Return the frames of the implementation in a traceback, innermost last."""
    import traceback

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "suite/properties" not in frame.filename]
    return "".join(traceback.format_list(frames[-4:])).rstrip()


def reason_of(report: pytest.TestReport) -> str:
    """Return why a test was skipped."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def pytest_report_teststatus(report: pytest.CollectReport | pytest.TestReport) -> Any:
    outcome = outcome_of(report) if isinstance(report, pytest.TestReport) else None
    if outcome is None or not report.skipped:
        return None
    if outcome.status == "fails" and not outcome.known:
        word = "not refused" if outcome.kind == "refusal" else outcome.kind
        return word, word[0], (word.upper(), {"yellow": True})
    if outcome.status in MARKS:
        return outcome.status, outcome.status[0], outcome.status.upper()
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    summary = summary_of(terminalreporter)
    if not summary.outcomes:
        return
    subject, known, strict = subject_of(config), config.stash[KNOWN], is_strict(config)
    bad = summary.failed(strict=strict) or not summary.ids("holds", "fails")
    terminalreporter.write_line(summary.headline(subject.name), red=bool(bad), green=not bad)
    if subject.name != DEFAULT or bad:
        for line in summary.details(strict=strict, known=known, parts=subject.parts, choices=subject.domain.choices):
            terminalreporter.write_line(line)
        for pointer in pointers(subject.target):
            terminalreporter.write_line(f"  note         {pointer}")
        for line in [] if strict else summary.asides(most=None if config.option.verbose > 0 else 6):
            terminalreporter.write_line(line)
    if not summary.ids("holds", "fails"):
        terminalreporter.write_line("no check was run: this says nothing about the implementation", red=True)


def summary_of(terminalreporter: pytest.TerminalReporter) -> Summary:
    """Sum up all reports of checks, including those of other processes."""
    outcomes = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and (outcome := outcome_of(report)):
                outcomes.append(outcome)
    return Summary(outcomes, of=ids())


def outcome_of(report: pytest.TestReport) -> Outcome | None:
    """Return what a report says about a check, None if it is of another test or of setup or teardown."""
    facts: dict[str, Any] = dict(report.user_properties)
    id = facts.get("check")
    if id is None or not (report.when == "call" or (report.when == "setup" and report.skipped)):
        return None
    if "failed" in facts:
        shown = f"{facts['headline']}\n{facts['paste']}"
        known = str(facts.get("known", ""))
        return Outcome(str(id), facts["failed"], "fails", shown, repeats=_ids(facts), known=known)
    if report.failed:  # an error of the check itself
        return Outcome(str(id), "result", "fails")
    kind = facts["kind"]
    if report.skipped:
        reason = reason_of(report)
        for status, mark in MARKS.items():
            if reason.startswith(mark):
                return Outcome(str(id), kind, status, reason.removeprefix(mark))
        return Outcome(str(id), kind, "skipped", reason)
    return Outcome(str(id), kind, "holds", repeats=_ids(facts))


def _ids(facts: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(facts.get("repeats", "")).split())


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or session.config.option.collectonly:
        return
    summary = summary_of(reporter)
    if summary.outcomes and not summary.ids("holds", "fails") and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
