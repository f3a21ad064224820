"""`python -m suite calibrate TASK`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from suite.commands import sources

if TYPE_CHECKING:
    from suite.runs.trials import Trial
    from suite.specs.spec import Spec

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
  python -m suite calibrate token-classification
  python -m suite calibrate token-classification+first --seeds 1-20
  python -m suite calibrate masked-lm --profile small --mirror /data/mirror \\
      --seeds 1-3 --engine loop
  python -m suite calibrate masked-lm --profile course --device cuda \\
      --launch "torchrun --standalone --nproc-per-node 8"
  python -m suite calibrate masked-lm --seeds 1-3 --dry-run

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
    parser.add_argument("--engine", default="trainer", metavar="NAME", help="trainer (default), loop or packed")
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

    from suite.commands.terminal import console
    from suite.sessions.options import OptionError
    from suite.specs import calibration

    if options.resume and options.results is None:
        raise OptionError("--resume: goes on from the records in --results DIR; name that directory too")
    trials = _trials(options)
    return calibration.calibrate(
        trials,
        console=console(),
        results=None if options.results is None else Path(options.results).resolve(),
        write=not options.dry_run,
        resume=options.resume,
    )


def _trials(options: argparse.Namespace) -> list[Trial]:
    from suite.runs.trials import Conditions
    from suite.sessions import options as parsing
    from suite.sessions import plan

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
