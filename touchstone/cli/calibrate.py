"""`touchstone calibrate TASK`: train one spec with many seeds and write the results as the new expectation."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from touchstone.cli import shared
from touchstone.engines import engine_slug
from touchstone.interface import options as parsing
from touchstone.interface.display import band, duration, figure, result_line
from touchstone.interface.options import OptionError
from touchstone.interface.progress import progress_view
from touchstone.records.machine import describe_hardware
from touchstone.records.record import Record, RecordError, read_record, record_name
from touchstone.runs.trials import Conditions, Trial, run_trial
from touchstone.specs.expectation import Expectation, Measured, save_expectations
from touchstone.specs.verdict import judge

DESCRIPTION = "Measure the expectation of a task: the values of its metrics over many seeds, on this machine."
EPILOG = """\
what it does:
  Trains the task once with each seed, each run in its own process, and writes
  the values with their seeds, hardware, versions, date and commit to
  expectations/TASK.PROFILE.json in the directory of the spec. From then on,
  runs are judged by the band that holds 99 of 100 such runs. If a run fails,
  nothing is written. Variants of the open division are judged by their task's
  expectation and cannot be calibrated.

  Calibrate after a deliberate change of a spec (an expectation applies to one
  version of the spec only), never to make a failing test pass. More seeds give
  a narrower and more reliable band: half its width is 3.4 standard deviations
  with 10 seeds, and 11.5 with 3.

  With --launch CMD, each run is trained by the processes that CMD starts, like
  pytest suite/ --launch (docs/distributed.md). The expectation records how many
  there were and holds for any number, because a batch is split among them.

  With --results DIR --resume, runs that already have a record in DIR (same
  spec, engine, precision, seed and machine) are not repeated. Use it to
  continue, or to add seeds. All runs must have used the same data and versions.

examples:
  touchstone calibrate token-classification
  touchstone calibrate token-classification+first --seeds 1-20
  touchstone calibrate masked-lm --profile small --mirror /data/mirror \\
      --seeds 1-3 --engine loop
  touchstone calibrate masked-lm --profile course --device cuda \\
      --launch "torchrun --standalone --nproc-per-node 8"
  touchstone calibrate masked-lm --seeds 1-3 --dry-run

exit codes:
  0 written; 1 a run failed, nothing was written; 2 an option is wrong or data
  is missing; 130 interrupted, nothing was written.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_spec_arguments(parser)
    add = parser.add_argument
    add("--seeds", default="1-10", metavar="LIST", help="seeds and ranges, such as 1-10 (default) or 1,2,5")
    add(
        "--engine",
        default="trainer",
        metavar="NAME",
        help="trainer (default), loop, packed, or package.module:attribute",
    )
    add("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda, cuda:N")
    add("--precision", default="fp32", metavar="NAME", help="fp32 (default), bf16 or fp16")
    add(
        "--launch",
        metavar="CMD",
        help='train each run in the processes that this command starts, such as "torchrun --standalone '
        '--nproc-per-node 2" (docs/distributed.md)',
    )
    add("--timeout", metavar="TIME", help="time limit of one run, such as 90, 15m or 2h (default: the spec's)")
    add("--results", metavar="DIR", help="also keep the records of the runs in this directory")
    add("--resume", action="store_true", help="do not repeat runs that have a record in --results DIR")
    add("--dry-run", action="store_true", help="show the result without writing an expectation")


def run(options: argparse.Namespace) -> int:
    if options.resume and options.results is None:
        raise OptionError("--resume continues from the records in --results DIR; also give --results")
    return calibrate(
        _trials(options),
        console=shared.console(),
        results=None if options.results is None else Path(options.results).resolve(),
        write=not options.dry_run,
        resume=options.resume,
    )


def _trials(options: argparse.Namespace) -> list[Trial]:
    """Build one trial for each seed.

    Raises:
        OptionError: an option is wrong, or the spec cannot be calibrated.
        SpecError: the spec is not valid.
    """
    from touchstone.interface import plan  # imports torch

    device = parsing.resolve_device(options.device)
    conditions = Conditions(
        device=device,
        precision=parsing.check_precision(options.precision, device=device),
        mirror=parsing.parse_mirror(options.mirror),
        timeout=parsing.parse_timeout(options.timeout),
        launcher=parsing.parse_launch(options.launch, device=device),
    )
    seeds = parsing.parse_seeds(options.seeds)
    if len(seeds) < 2:
        n = seeds[0] if 2 <= seeds[0] <= 100 else 10
        raise OptionError(
            f"--seeds {options.seeds}: at least two seeds are needed to measure the spread; "
            f"--seeds lists the seeds, so write --seeds 1-{n} for {n} runs"
        )
    overrides = shared.overrides(options)
    spec = shared.chosen_spec(options)
    if spec.division == "open":
        main = spec.closed_spec.name
        raise OptionError(
            f"{spec.name}: belongs to the open division, which is judged by the expectation of {main}; "
            f"calibrate {main} --profile {spec.profile}, or train the variant with: pytest suite/ --task {spec.name}"
        )
    if overrides.given(spec.task) and not options.dry_run:
        raise OptionError(
            "--dataset and --checkpoint change what the spec measures, so no expectation can be written; "
            "write your own spec (--spec FILE), or add --dry-run"
        )
    (engine,) = plan.choose_engines([options.engine])
    spec = spec.overridden(**overrides.given(spec.task))
    return [Trial(spec, engine, seed, conditions) for seed in seeds]


def calibrate(
    trials: Sequence[Trial], *, console: Console, results: Path | None, write: bool, resume: bool = False
) -> int:
    """Run all trials (one spec and engine, many seeds), show each, and write the expectation.

    Args:
        results: directory where records are kept; None does not keep them.
        write: whether to write the expectation.
        resume: use the record of a run in `results`, if there is one, instead of running it again.

    Returns:
        The exit code: 0, or 1 if a run failed.

    Raises:
        RecordError: a kept record cannot be read or belongs to a different run, or the runs used different data,
            versions or numbers of processes.
    """
    spec = trials[0].spec
    console.print(f"{spec.name}, profile {spec.profile}, on {trials[0].engine}: {len(trials)} runs", style="bold")
    if launcher := trials[0].conditions.launcher:
        command = parsing.launched_by(launcher)
        console.print(f"each run started by {command}", style="bold", markup=False, soft_wrap=True)
    records: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="touchstone-") as logs:
        for trial in trials:
            record = kept_record(trial, results) if resume and results is not None else None
            note = "" if record is None else "  (recorded before)"
            if record is None:
                with progress_view(f"seed {trial.seed}", console=console) as view:
                    log = Path(logs) / f"{trial.name}.log"
                    result = run_trial(trial, results=results, log=log, on_message=view.update)
                record = result.record
                if record is None:
                    console.print(result_line(result), soft_wrap=True)
                    console.print(result.outcome.report(), style="red", markup=False, soft_wrap=True)
                    console.print("\nNo expectation was written, because it would lack the seed that failed.")
                    return 1
            console.print(_line(trial, record).append(note, style="dim"), soft_wrap=True)
            records.append(record)
            _check_sameness(records)  # before hours are spent on the remaining runs
    expectations = [expectation_of(metric, records=records) for metric in spec.assertions]
    console.print(_table(expectations))
    if write:
        console.print(f"written: {save_expectations(spec, expectations)}", soft_wrap=True)
    else:
        console.print("Nothing was written (--dry-run).")
    return 0


def expectation_of(metric: str, *, records: Sequence[Record]) -> Expectation:
    """Build the expectation of a metric from the records of one spec, engine and machine."""
    scores = [next(score for score in record.quality if score.name == metric) for record in records]
    first = records[0]
    # Metrics without an upper limit (perplexity, loss) spread by ratios, so their band is computed on a log scale.
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
            date=datetime.now(timezone.utc).date(),
            commit=first.suite.commit,
            dataset_fingerprint=first.dataset_fingerprint,
        ),
    )


def kept_record(trial: Trial, results: Path) -> Record | None:
    """Return the record of this trial on this machine, or None if there is none.

    With a launcher, a record with any number of processes counts: the number is known only after a launch.

    Raises:
        RecordError: the record cannot be read, was made with another version of the spec, or there are records with
            several numbers of processes.
    """
    conditions, spec = trial.conditions, trial.spec
    name = record_name(spec.name, spec.profile, engine_slug(trial.engine), conditions.precision, seed=trial.seed)
    folder = results / describe_hardware(conditions.device).folder
    found = [folder / name] if (folder / name).exists() else []
    if conditions.launcher:
        start, seed, end = name.rpartition(".seed")
        found = [path for path in found if read_record(path).launch is not None]
        found += sorted(folder.glob(f"{start}.*-processes{seed}{end}"))
    if len(found) > 1:
        raise RecordError(
            f"{folder}: has records with several numbers of processes ({', '.join(path.name for path in found)}); "
            "move the wrong ones away, or omit --resume"
        )
    if not found:
        return None
    (path,) = found
    record = read_record(path)
    if record.spec.hash != spec.hash:
        raise RecordError(
            f"{path}: was made with spec {record.spec.hash[:12]}, but {spec.path} is now {spec.hash[:12]}; "
            "move the record away, or omit --resume"
        )
    return record


def _check_sameness(records: Sequence[Record]) -> None:
    """Raise RecordError if the runs differ in more than their seed."""
    kinds = {
        "data": {record.dataset_fingerprint for record in records},
        "numbers of processes": {str(record.processes) for record in records},
        "software versions": {str(sorted(record.software.packages.items())) for record in records},
    }
    for what, found in kinds.items():
        if len(found) > 1:
            raise RecordError(
                f"the runs used different {what}, so no expectation can be made from them: {', '.join(sorted(found))}"
            )


def _line(trial: Trial, record: Record) -> Text:
    """Format one run without a verdict: there is no valid expectation yet."""
    asserted = [score for score in record.quality if score.name in trial.spec.assertions]
    scores = "  ".join(f"{score.name} {figure(score.value)}" for score in asserted)
    return Text(f"  seed {trial.seed}  {scores}  {duration(record.seconds)}")


def _table(expectations: Sequence[Expectation]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("metric", "runs", "mean", "sd", "min", "max", "band of one run (99%)"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for expectation in expectations:
        values = expectation.values
        mean = statistics.fmean(values)
        verdict = judge([mean], expectation=expectation, metric=expectation.metric)
        figures = [figure(value) for value in (mean, statistics.stdev(values), min(values), max(values))]
        table.add_row(expectation.metric, str(len(values)), *figures, band(verdict))
    return table
