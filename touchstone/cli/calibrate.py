"""`touchstone calibrate TASK`."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from touchstone.cli import sources
from touchstone.engines import engine_slug
from touchstone.interface import display
from touchstone.interface.options import launched_by
from touchstone.records.machine import describe_hardware
from touchstone.records.record import Record, RecordError, read_record, record_name
from touchstone.runs.trials import Trial, run_trial
from touchstone.specs.expectation import Expectation, Measured, save_expectations
from touchstone.specs.verdict import judge

if TYPE_CHECKING:
    from touchstone.runs.trials import Trial
    from touchstone.specs.spec import Spec


# Measures expectations: one spec with many seeds, each run isolated, and what came out with where it came from.


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
    name = record_name(spec.name, spec.profile, engine_slug(trial.engine), conditions.precision, seed=trial.seed)
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
    scores = "  ".join(f"{score.name} {display.figure(score.value)}" for score in asserted)
    return Text(f"  seed {trial.seed}  {scores}  {display.duration(record.seconds)}")


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
            display.figure(statistics.fmean(values)),
            display.figure(statistics.stdev(values)),
            display.figure(min(values)),
            display.figure(max(values)),
            display.band(verdict),
        )
    return table


def _display(trial: Trial, *, console: Console) -> display.RunDisplay:
    title = f"seed {trial.seed}"
    if console.is_terminal and not os.environ.get("CI"):
        return display.LiveDisplay(title, console=console)
    return display.LineDisplay(title, stream=sys.stdout)


EPILOG = """\
what it does:
  runs the task once with each seed, each run in a process of its own, and
  writes what came out as the new expectation: the values themselves, with
  seeds, hardware, versions, date and commit, to expectations/TASK.PROFILE.json
  beside the spec. From then on a run is judged by the band in which 99 of 100
  such runs would lie. If any run fails, nothing is written. A variant of the
  open division is judged by its task's expectation and has none of its own.

  Do it when the spec was changed on purpose (an expectation of another spec is
  not applied), never to make a red test green. More seeds, a narrower and surer
  band: half of it is 3.4 standard deviations with 10 seeds, 11.5 with 3.

  With --launch CMD each run is trained by the processes that CMD starts, as
  pytest suite/ --launch does (docs/distributed.md); the expectation says by how
  many. It holds for any number: batches are those of all processes together.

  With --results DIR --resume it goes on where it stopped, or adds seeds: a run
  of this spec, engine, precision and seed that was recorded there on this
  machine is not made again. All must have seen the same data and versions.

examples:
  touchstone calibrate token-classification
  touchstone calibrate token-classification+first --seeds 1-20
  touchstone calibrate masked-lm --profile small --mirror /data/mirror \\
      --seeds 1-3 --engine loop
  touchstone calibrate masked-lm --profile course --device cuda \\
      --launch "torchrun --standalone --nproc-per-node 8"
  touchstone calibrate masked-lm --seeds 1-3 --dry-run

exit codes:
  0 written; 1 a run failed, nothing was written; 2 a wrong option or no data;
  130 interrupted, nothing was written.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    parser = subparsers.add_parser(
        name,
        help="measure what a task's metric should be",
        description="Measures the expectation of a task: what its metric is over many seeds, on this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sources.add_arguments(parser)
    parser.add_argument(
        "--seeds", default="1-10", metavar="LIST", help="seeds and ranges, such as 1-10 (default) or 1,2,5"
    )
    parser.add_argument(
        "--engine",
        default="trainer",
        metavar="NAME",
        help="trainer (default), loop, packed, or your own as package.module:attribute",
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda, cuda:N")
    parser.add_argument("--precision", default="fp32", metavar="NAME", help="fp32 (default), bf16 or fp16")
    parser.add_argument(
        "--launch",
        metavar="CMD",
        help='what starts the processes that train each run, such as "torchrun --standalone '
        '--nproc-per-node 2" (docs/distributed.md)',
    )
    parser.add_argument("--timeout", metavar="TIME", help="of one run, such as 90, 15m or 2h (default: the spec's)")
    parser.add_argument("--results", metavar="DIR", help="keep the runs' records below this directory too")
    parser.add_argument("--resume", action="store_true", help="take runs that have their record there from there")
    parser.add_argument("--dry-run", action="store_true", help="show the outcome, write no expectation")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    return sources.reporting_problems(lambda: _calibrate(options))


def _calibrate(options: argparse.Namespace) -> int:
    from pathlib import Path

    from touchstone.cli.terminal import console
    from touchstone.interface.options import OptionError

    if options.resume and options.results is None:
        raise OptionError("--resume: goes on from the records in --results DIR; name that directory too")
    trials = _trials(options)
    return calibrate(
        trials,
        console=console(),
        results=None if options.results is None else Path(options.results).resolve(),
        write=not options.dry_run,
        resume=options.resume,
    )


def _trials(options: argparse.Namespace) -> list[Trial]:
    from touchstone.interface import options as parsing
    from touchstone.interface import plan
    from touchstone.runs.trials import Conditions

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
        raise parsing.OptionError(
            f"--seeds {options.seeds}: one seed shows no spread; --seeds names the seeds, so {n} runs are --seeds 1-{n}"
        )
    overrides = sources.overrides(options)
    spec: Spec = sources.chosen_spec(options)
    if spec.division == "open":
        main = spec.closed_spec.name
        raise parsing.OptionError(
            f"{spec.name}: is of the open division, which has to reach what {main} reaches and has no expectation of "
            f"its own: calibrate {main} --profile {spec.profile}, or train it: pytest suite/ --task {spec.name}"
        )
    if overrides.given(spec.task) and not options.dry_run:
        raise parsing.OptionError(
            "--dataset and --checkpoint measure something else than the spec says, and no expectation can be written: "
            "put them into a spec of your own (--spec FILE), or add --dry-run"
        )
    engines = plan.choose_engines([options.engine])
    return plan.make_trials(
        [spec], engines=engines, seeds=seeds, named=[spec.name], overrides=overrides, conditions=conditions
    )
