"""Train the trials of the session, and check that the metrics of each are within their bands."""

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
from touchstone.interface.progress import NoProgress, ProgressView, progress_view
from touchstone.interface.workers import FOUND, means_to_json, to_json
from touchstone.runs.isolation import start_server
from touchstone.runs.trials import Trial, run_trial
from touchstone.specs.expectation import Expectation, Published, expectations_path, load_expectations
from touchstone.specs.verdict import Verdict, judge


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    suite = metafunc.config.stash[CONFIG]
    if not metafunc.config.option.collectonly:
        start_server()  # imports in the background while the specs are read and the properties run
    trials: list[Trial] = []
    try:
        trials = suite.trials()
    except OptionError as error:
        suite.problem = str(error)  # reported as a usage error at the end of collection
    if "trial" in metafunc.fixturenames:
        metafunc.parametrize("trial", trials, ids=[trial.name for trial in trials])
    if "group" in metafunc.fixturenames:
        groups = _groups(trials) if len(suite.seeds) > 1 else {}
        metafunc.parametrize("group", list(groups.values()), ids=list(groups))


def test_training_reaches_the_expected_metrics(
    trial: Trial, suite_config: SuiteConfig, pytestconfig: pytest.Config, request: pytest.FixtureRequest
) -> None:
    log = suite_config.logs / f"{trial.name}.log"
    with _terminal(pytestconfig) as console:
        with _progress(trial, console=console, config=pytestconfig) as view:
            result = run_trial(trial, results=suite_config.results, log=log, on_message=view.update)
        suite_config.found.append(result)
        request.node.stash[FOUND] = {"result": to_json(result)}
        if pytestconfig.get_verbosity() >= 0:
            console.print(display.result_line(result), soft_wrap=True)
    if result.record is None:
        pytest.fail(f"{trial.name}: {result.outcome.report()}", pytrace=False)
    log.unlink(missing_ok=True)
    problems = [_complaint(verdict, trial=trial) for verdict in result.record.verdicts if verdict.failed]
    problems += result.problems
    if problems:
        pytest.fail(f"{trial.name}: " + "\n\n".join(problems), pytrace=False)


def test_mean_over_seeds_is_as_expected(
    group: list[Trial], suite_config: SuiteConfig, request: pytest.FixtureRequest
) -> None:
    first, seeds = group[0], [trial.seed for trial in group]
    wanted = {trial.name for trial in group}
    records = {result.trial.name: result.record for result in suite_config.found if result.trial.name in wanted}
    if missing := [trial.seed for trial in group if records.get(trial.name) is None]:
        pytest.skip(f"the mean needs a result for every seed of {seeds}; missing: {missing}")
    if first.spec.overrides:
        pytest.skip("expectations do not apply with --dataset or --checkpoint")
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
    suite_config.means += means
    request.node.stash[FOUND] = {"means": means_to_json(means)}
    if problems:
        pytest.fail(f"{first.spec.name} on {first.engine}, seeds {seeds}: " + "\n\n".join(problems), pytrace=False)


def _groups(trials: list[Trial]) -> dict[str, list[Trial]]:
    """Group the trials that differ only in their seed."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.group, []).append(trial)
    return groups


def _complaint(verdict: Verdict, *, trial: Trial) -> str:
    """Explain a failed verdict: the value, its band, the source of the band, and what to do."""
    file = expectations_path(trial.spec)
    expectation = load_expectations(trial.spec).get(verdict.metric)
    what = f"the mean {verdict.metric} of {verdict.n} seeds" if verdict.n > 1 else verdict.metric
    lines = [f"{what} is {verdict.status.replace('-', ' ')}: {verdict.explanation}."]
    if expectation is not None:
        lines.append(f"The expectation is based on {_provenance(expectation)} ({file}).")
    task = f"--profile {trial.spec.profile} --task {trial.spec.name} --engine {trial.engine}"
    if verdict.status == "better-than-expected":
        advice = "Too good is suspicious: look for validation data in training, or positions left out of the score."
    else:
        advice = "Check where the record's trajectory departs from that of a good run, and whether all properties hold."
    if trial.spec.division == "open":
        lines.append(
            "With every seed, a recipe of the open division must reach the quality of the closed division: train "
            f"longer, or improve the recipe ([variants.{trial.spec.variant}.recipe] in {trial.spec.path})."
        )
        return "\n".join(lines)
    lines.append(
        f"{advice} By chance, 1 of {1 / (1 - verdict.confidence):.0f} correct runs is outside the band; try other "
        f"seeds: pytest suite/ {task} --seeds {trial.seed + 1}-{trial.seed + 3}. If the change is intended, measure a "
        f"new expectation: touchstone calibrate {trial.spec.name} --profile {trial.spec.profile}"
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
    """Write to the terminal instead of pytest's capture while a trial runs. The trial itself prints to its log."""
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
        if reporter.verbosity <= 0:  # pytest has printed the file's name already
            reporter.currentfspath = file


def _console(reporter: pytest.TerminalReporter) -> Console:
    colour = reporter.hasmarkup
    return Console(file=sys.stdout, force_terminal=colour, no_color=not colour, highlight=False, width=_width(reporter))


def _width(reporter: pytest.TerminalReporter) -> int | None:
    return None if sys.stdout.isatty() else display.PIPE_WIDTH


def _progress(trial: Trial, *, console: Console, config: pytest.Config) -> ProgressView:
    if config.get_verbosity() < 0:
        return NoProgress()
    return progress_view(f"{trial.spec.name} {trial.engine} seed {trial.seed}", console=console)
