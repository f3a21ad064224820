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

from suite.records.hardware import describe_hardware
from suite.records.record import Record, RecordError, read_record, record_name
from suite.runs.trials import Trial, run_trial
from suite.sessions import display, figures, progress
from suite.sessions.options import launched_by
from suite.specs.expectation import Expectation, Measured, save_expectations
from suite.specs.verdict import judge


def calibrate(
    trials: Sequence[Trial], *, console: Console, results: Path | None, write: bool, resume: bool = False
) -> int:
    """Run all trials (one spec, one engine, many seeds), show each, and write the expectation.

    Args:
        results: where records are kept, if they are.
        resume: take a run that has its record in `results` already from there.

    Returns:
        The exit code: 0, or 1 if a run failed.

    Raises:
        RecordError: a record to go on from cannot be read, or is of another run than this would be.
    """
    spec = trials[0].spec
    console.print(f"{spec.name}, profile {spec.profile}, on {trials[0].engine}: {len(trials)} runs", style="bold")
    if launcher := trials[0].conditions.launcher:
        console.print(f"each run started by {launched_by(launcher)}", style="bold", markup=False, soft_wrap=True)
    records: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="touchstone-") as logs:
        for trial in trials:
            if resume and results is not None and (kept := kept_record(trial, results)) is not None:
                console.print(_line(trial, kept) + Text("  (recorded before)", style="dim"), soft_wrap=True)
                records.append(kept)
                _check_sameness(records)  # before hours are spent on the rest
                continue
            log = Path(logs) / f"{trial.name}.log"
            with _display(trial, console=console) as view:
                result = run_trial(trial, results=results, log=log, on_message=view.update)
            if result.record is None:
                console.print(display.result_line(result), soft_wrap=True)
                console.print(result.outcome.report(), style="red", markup=False, soft_wrap=True)
                console.print("\nNo expectation was written: it would leave out the seed that failed.")
                return 1
            console.print(_line(trial, result.record), soft_wrap=True)
            records.append(result.record)
            _check_sameness(records)
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
            processes=first.processes,
            precision=first.precision,
            date=datetime.now(UTC).date(),
            commit=first.suite.commit,
            dataset_fingerprint=first.dataset_fingerprint,
        ),
    )


def kept_record(trial: Trial, results: Path) -> Record | None:
    """The record of this very run on this machine, if there is one.

    How many processes a launcher starts is known once it has: a record of any number of them is of this run.

    Raises:
        RecordError: it cannot be read, it is of another version of the spec, or there are records of several numbers
            of processes.
    """
    conditions, spec = trial.conditions, trial.spec
    name = record_name(spec.name, spec.profile, trial.engine, conditions.precision, seed=trial.seed)
    folder = results / describe_hardware(conditions.device).folder
    found = [folder / name] if (folder / name).exists() else []
    if conditions.launcher:
        start, seed, end = name.rpartition(".seed")
        found = [path for path in found if read_record(path).launch is not None]
        found += sorted(folder.glob(f"{start}.*-processes{seed}{end}"))
    if len(found) > 1:
        raise RecordError(
            f"{folder}: holds runs of several numbers of processes ({', '.join(path.name for path in found)}): "
            "move those away that are not meant, or leave --resume out"
        )
    if not found:
        return None
    (path,) = found
    record = read_record(path)
    if record.spec.hash != spec.hash:
        raise RecordError(
            f"{path}: is of spec {record.spec.hash[:12]}, and {spec.path} is {spec.hash[:12]} now: "
            "move it away, or leave --resume out"
        )
    return record


def _check_sameness(records: Sequence[Record]) -> None:
    """Raises RecordError: the runs differ in more than their seed."""
    kinds = {
        "data": {record.dataset_fingerprint for record in records},
        "numbers of processes": {str(record.processes) for record in records},
        "software": {str(sorted(record.software.packages.items())) for record in records},
    }
    for what, found in kinds.items():
        if len(found) > 1:
            raise RecordError(f"the runs are of different {what}, and make no expectation: {', '.join(sorted(found))}")


def _line(trial: Trial, record: Record) -> Text:
    """Of one run: no verdict, since it is the judge that is being made."""
    asserted = [score for score in record.quality if score.name in trial.spec.assertions]
    scores = "  ".join(f"{score.name} {figures.figure(score.value)}" for score in asserted)
    return Text(f"  seed {trial.seed}  {scores}  {figures.duration(record.seconds)}")


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
