"""Measures expectations: one spec with many seeds, each run isolated, and what came out with where it came from."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from suite.records.record import Record
from suite.runs.trials import Result, Trial, run_trial
from suite.sessions import display, figures, progress
from suite.specs.expectation import Expectation, Measured, save_expectations
from suite.specs.verdict import judge


def calibrate(trials: Sequence[Trial], *, console: Console, results: Path | None, write: bool) -> int:
    """Run all trials (one spec, one engine, many seeds), show each, and write the expectation.

    Returns:
        The exit code: 0, or 1 if a run failed.
    """
    spec = trials[0].spec
    console.print(f"{spec.name}, profile {spec.profile}, on {trials[0].engine}: {len(trials)} runs", style="bold")
    found: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="touchstone-") as logs:
        for trial in trials:
            log = Path(logs) / f"{trial.name}.log"
            with _display(trial, console=console) as view:
                result = run_trial(trial, results=results, log=log, on_message=view.update)
            console.print(_line(result), soft_wrap=True)
            if result.record is None:
                console.print(result.outcome.report(), style="red", markup=False, soft_wrap=True)
                console.print("\nNo expectation was written: it would leave out the seed that failed.")
                return 1
            found.append(result)
    records = [result.record for result in found if result.record is not None]
    expectations = [expectation_of(metric, records=records) for metric in spec.assertions]
    console.print(_table(expectations))
    if write:
        console.print(f"written: {save_expectations(spec, expectations)}", soft_wrap=True)
    else:
        console.print("Nothing was written (--dry-run).")
    return 0


def expectation_of(metric: str, *, records: Sequence[Record]) -> Expectation:
    """What these records (of one spec, engine and machine) say about a metric."""
    scores = [next(score for score in record.quality if score.name == metric) for record in records]
    first = records[0]
    # Without an end upwards (perplexity, loss) the spread is taken on a log scale, on which a ratio is a distance.
    scale: Literal["linear", "log"] = "log" if scores[0].upper is None else "linear"
    return Expectation(
        metric=metric,
        values=tuple(score.value for score in scores),
        seeds=tuple(record.seed for record in records),
        higher_is_better=scores[0].higher_is_better,
        scale=scale,
        lower=scores[0].lower,
        upper=scores[0].upper,
        spec_hash=first.spec.hash,
        provenance=Measured(
            hardware=f"{first.hardware.name} ({first.hardware.id})",
            software=first.software.packages,
            engine=first.engine,
            precision=first.precision,
            date=datetime.now(UTC).date(),
            commit=first.suite.commit,
            dataset_fingerprint=first.dataset_fingerprint,
        ),
    )


def _line(result: Result) -> Text:
    """Of one run: no verdict, since it is the judge that is being made."""
    trial, record = result.trial, result.record
    if record is None:
        return display.result_line(result)
    asserted = [score for score in record.quality if score.name in trial.spec.assertions]
    scores = "  ".join(f"{score.name} {figures.figure(score.value)}" for score in asserted)
    return Text(f"  seed {trial.seed}  {scores}  {figures.duration(display.run_seconds(result))}")


def _table(expectations: Sequence[Expectation]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("metric", "runs", "mean", "sd", "least", "greatest", "band of one run (99 %)"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for expectation in expectations:
        values = expectation.values
        verdict = judge([statistics.fmean(values)], expectation=expectation, metric=expectation.metric)
        table.add_row(
            expectation.metric,
            str(len(values)),
            figures.figure(statistics.fmean(values)),
            figures.figure(statistics.stdev(values)),
            figures.figure(min(values)),
            figures.figure(max(values)),
            display.band(verdict),
        )
    return table


def _display(trial: Trial, *, console: Console) -> progress.RunDisplay:
    title = f"seed {trial.seed}"
    if console.is_terminal and not os.environ.get("CI"):
        return progress.LiveDisplay(title, console=console)
    return progress.LineDisplay(title, stream=sys.stdout)
