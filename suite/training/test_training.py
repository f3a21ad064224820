"""Trains every spec on every engine with every seed, and asserts the spec's metrics, each within its band."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from touchstone.interface import display
from touchstone.interface.config import CONFIG, Mean, SuiteConfig
from touchstone.interface.options import OptionError
from touchstone.interface.workers import FOUND, plain, plain_means
from touchstone.runs.isolation import start_server
from touchstone.runs.trials import Trial, run_trial
from touchstone.specs.expectation import Expectation, Published, expectations_path, load_expectations
from touchstone.specs.verdict import Verdict, judge


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    state = metafunc.config.stash[CONFIG]
    if not metafunc.config.option.collectonly:
        start_server()  # it imports in the background, while the specs are read and the properties run
    trials: list[Trial] = []
    try:
        trials = state.trials()
    except OptionError as error:
        state.problem = str(error)  # told once collection is over, as what it is: a wrong option
    if "trial" in metafunc.fixturenames:
        metafunc.parametrize("trial", trials, ids=[trial.name for trial in trials])
    if "group" in metafunc.fixturenames:
        groups = _groups(trials) if len(state.seeds) > 1 else {}
        metafunc.parametrize("group", list(groups.values()), ids=list(groups))


def test_training_ends_where_it_should(
    trial: Trial, session_state: SuiteConfig, pytestconfig: pytest.Config, request: pytest.FixtureRequest
) -> None:
    log = session_state.logs / f"{trial.name}.log"
    with _terminal(pytestconfig) as console:
        with _display(trial, console=console, config=pytestconfig) as view:
            result = run_trial(trial, results=session_state.results, log=log, on_message=view.update)
        session_state.found.append(result)
        request.node.stash[FOUND] = {"result": plain(result)}
        if pytestconfig.get_verbosity() >= 0:
            console.print(display.result_line(result), soft_wrap=True)
    if result.record is None:
        pytest.fail(f"{trial.name}: {result.outcome.report()}", pytrace=False)
    log.unlink(missing_ok=True)
    problems = [_complaint(verdict, trial=trial) for verdict in result.record.verdicts if verdict.failed]
    problems += result.problems
    if problems:
        pytest.fail(f"{trial.name}: " + "\n\n".join(problems), pytrace=False)


def test_mean_over_seeds_is_what_it_should_be(
    group: list[Trial], session_state: SuiteConfig, request: pytest.FixtureRequest
) -> None:
    first, seeds = group[0], [trial.seed for trial in group]
    wanted = {trial.name for trial in group}
    records = {result.trial.name: result.record for result in session_state.found if result.trial.name in wanted}
    if missing := [trial.seed for trial in group if records.get(trial.name) is None]:
        pytest.skip(f"the mean needs every seed of {seeds}; without a result: {missing}")
    if first.spec.overrides:
        pytest.skip("no expectation applies to --dataset or --checkpoint")
    data = {record.dataset_fingerprint for record in records.values() if record}
    if len(data) > 1:
        pytest.fail(f"the seeds {seeds} were trained on different data: {sorted(data)}", pytrace=False)
    expectations = load_expectations(first.spec, dataset_fingerprint=data.pop())
    problems: list[str] = []
    means: list[Mean] = []
    for metric in first.spec.assertions:
        values = [v.value for record in records.values() if record for v in record.verdicts if v.metric == metric]
        verdict = judge(values, expectation=expectations.get(metric), metric=metric)
        means.append((first.spec.name, first.engine, f"{len(seeds)} seeds", verdict))
        if verdict.failed:
            problems.append(_complaint(verdict, trial=first))
    session_state.means += means
    request.node.stash[FOUND] = {"means": plain_means(means)}
    if problems:
        pytest.fail(f"{first.spec.name} on {first.engine}, seeds {seeds}: " + "\n\n".join(problems), pytrace=False)


def _groups(trials: list[Trial]) -> dict[str, list[Trial]]:
    """The trials that differ in their seed alone."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.group, []).append(trial)
    return groups


def _complaint(verdict: Verdict, *, trial: Trial) -> str:
    """What a failed verdict tells: value, band, where the band comes from, what to do."""
    file = expectations_path(trial.spec)
    expectation = load_expectations(trial.spec).get(verdict.metric)
    what = f"the mean {verdict.metric} of {verdict.n} seeds" if verdict.n > 1 else verdict.metric
    lines = [f"{what} is {verdict.status.replace('-', ' ')}: {verdict.explanation}."]
    if expectation is not None:
        lines.append(f"Expected from {_provenance(expectation)} ({file}).")
    task = f"--profile {trial.spec.profile} --task {trial.spec.name} --engine {trial.engine}"
    if verdict.status == "better-than-expected":
        advice = "Too good is suspicious: look for validation data in training, or positions left out of the score."
    else:
        advice = "Look at the record's trajectory for where it parts from a good run, and at the properties above."
    if trial.spec.division == "open":
        lines.append(
            "The open division's recipe has to reach what the closed one's runs reached, on every seed: "
            f"let it train longer or better ([variants.{trial.spec.variant}.recipe] of {trial.spec.path})."
        )
        return "\n".join(lines)
    lines.append(
        f"{advice} One correct run in {1 / (1 - verdict.confidence):.0f} falls outside by chance: other seeds tell "
        f"(pytest suite/ {task} --seeds {trial.seed + 1}-{trial.seed + 3}). If the change is meant, measure anew: "
        f"touchstone calibrate {trial.spec.name} --profile {trial.spec.profile}"
    )
    return "\n".join(lines)


def _provenance(expectation: Expectation) -> str:
    source, n = expectation.provenance, len(expectation.values)
    if isinstance(source, Published):
        return f"{n} published runs: " + ", ".join(f"{card.name} <{card.url}>" for card in source.sources)
    by = f"{source.engine} in {source.processes} processes" if source.processes > 1 else source.engine
    return f"{n} runs measured on {source.hardware} with {by} in {source.precision}, {source.date}"


@contextmanager
def _terminal(config: pytest.Config) -> Iterator[Console]:
    """The real terminal, past pytest's capture, for as long as a trial runs: the trial itself prints to its log."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if reporter is None:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            yield Console(file=nowhere)
        return
    if capture is None:
        yield _console(reporter)
        return
    with capture.global_and_fixture_disabled():
        file = reporter.currentfspath
        reporter.ensure_newline()
        yield _console(reporter)
        if reporter.verbosity <= 0:  # the file's name stands above already, once for all trials
            reporter.currentfspath = file


def _console(reporter: pytest.TerminalReporter) -> Console:
    colour = reporter.hasmarkup
    return Console(file=sys.stdout, force_terminal=colour, no_color=not colour, highlight=False, width=_width(reporter))


def _width(reporter: pytest.TerminalReporter) -> int | None:
    return None if sys.stdout.isatty() else display.PIPE_WIDTH


def _display(trial: Trial, *, console: Console, config: pytest.Config) -> display.RunDisplay:
    title = f"{trial.spec.name} {trial.engine} seed {trial.seed}"
    if config.get_verbosity() < 0:
        return display.NoDisplay()
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI"):
        return display.LiveDisplay(title, console=console)
    return display.LineDisplay(title, stream=sys.stdout)
