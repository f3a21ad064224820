"""`touchstone times RECORDS`."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = "Show how long each engine, precision and division trained to reach the expected metric, from records."
EPILOG = """\
output:
  One table for every machine. Each row is one way in which a task was trained:
  an engine, a precision, a number of processes, or the recipe of the open
  division. Columns:
    expected metric  mean and standard deviation over seeds
    training [s]     seconds of training, mean and standard deviation over seeds
    of floor         the shortest time in which the machine could do the same
                     work, as a percentage of the training time
    x first          speed-up over the first row of the task, which is Trainer
                     if it was run and the slowest row otherwise

  A row has a speed-up only if all its runs reached the expected metric and had
  the machine to themselves; otherwise the reason is shown. Nothing is judged:
  use `touchstone compare` to see whether a difference is more than noise.

examples:
  touchstone times results/xeon-2c-24g-1f3a9c
  touchstone times results/ --profile small
  touchstone times results/ --markdown > times.md

exit codes:
  0 success; 2 a record does not exist or cannot be read.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("records", metavar="RECORDS", nargs="+", help="record files, or directories of them")
    parser.add_argument("--profile", metavar="NAME", help="show runs of this profile only")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")


def run(options: argparse.Namespace) -> int:
    from touchstone.cli.shared import console
    from touchstone.comparing.times import render_times, times_to_metric
    from touchstone.records.record import RecordError, read_records

    records = [record for place in options.records for record in read_records(Path(place))]
    profiles = sorted({record.spec.profile for record in records})
    if options.profile is not None:
        records = [record for record in records if record.spec.profile == options.profile]
    if not records:
        raise RecordError(f"there is no record of profile {options.profile!r}; profiles found: {', '.join(profiles)}")
    output = console()
    if options.markdown:
        output.width = 10_000  # keep each row on one line
    render_times(times_to_metric(records), output, markdown=options.markdown)
    return 0
