"""`touchstone audit SCRIPT [ARGUMENTS]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

DESCRIPTION = "Check a training script: is what it trains on, computes and reports what it says?"
EPILOG = """\
The script runs unmodified until it begins to train. Touchstone then checks the
batches, the labels, the loss, the optimizer, the evaluation and the data order,
prints its findings, and ends the script. Options stand before the script;
everything after it is the script's own.

examples:
  touchstone audit train.py --model_name_or_path X --output_dir Y
  touchstone audit --budget fast --json audit.json train.py

exit codes:
  0 nothing is wrong; 1 a fault is proved; 2 it could not judge (the script
  failed, or never trained).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the report as JSON")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the report as one page")
    parser.add_argument(
        "--budget",
        choices=("fast", "default", "deep"),
        default="default",
        help="fast: batches and labels, 10 s; default: also forward and backward passes, a minute; "
        "deep: also short trainings, several minutes",
    )
    parser.add_argument("--task", help="the task, where the model's head does not tell")
    parser.add_argument("--probe", action="append", metavar="ID", help="run only this probe (repeatable)")
    parser.add_argument("--list", action="store_true", help="list all probes and end")
    parser.add_argument("script", nargs="?", type=Path, metavar="SCRIPT", help="the training script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENTS", help="the script's own arguments")


def run(options: argparse.Namespace) -> int:
    from touchstone.auditing.script import CannotJudge, audit_script
    from touchstone.cli.shared import console

    try:
        report = audit_script(
            options.script, options.arguments, budget=options.budget, probes=options.probe, task=options.task
        )
    except CannotJudge as reason:
        print(f"could not judge: {reason}", file=sys.stderr)
        return 2
    if options.json:
        report.save(options.json)
    console().print(report)
    return report.exit_code
