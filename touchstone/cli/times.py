"""`touchstone times RECORDS`."""

from __future__ import annotations

import argparse

EPILOG = """\
what you see:
  for every task of each machine the ways in which it was trained (engine,
  precision, several processes, the open division's recipe), with the metric
  that its runs are judged by and the seconds of training, as mean and standard
  deviation over seeds; the floor (the least time in which the machine could do
  that work) as a percentage of the seconds; and how many times as fast a way is
  as the first: Trainer, where it was run, else the slowest.

  Only runs that ended as expected, and alone on the machine, have a time to the
  expected metric; of others it says why not. Nothing is judged: whether two
  machines or engines differ by more than noise is what `compare` says.

examples:
  touchstone times results/xeon-2c-24g-1f3a9c
  touchstone times results/ --profile small
  touchstone times results/ --markdown > times.md

exit codes:
  0 shown; 2 there is no such record, or one cannot be read.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    parser = subparsers.add_parser(
        name,
        help="how long each engine trained to the expected metric",
        description="Shows how long each way to train a task took to the expected metric, from records.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("records", metavar="RECORDS", nargs="+", help="records, or directories of records")
    parser.add_argument("--profile", metavar="NAME", help="of this profile alone")
    parser.add_argument("--markdown", action="store_true", help="write Markdown's tables")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import sys
    from pathlib import Path

    from touchstone.cli.terminal import console
    from touchstone.comparing.times import render_times, times_to_metric
    from touchstone.records.record import RecordError, read_records

    try:
        records = [record for place in options.records for record in read_records(Path(place))]
        profiles = sorted({record.spec.profile for record in records})
        if options.profile is not None:
            records = [record for record in records if record.spec.profile == options.profile]
        if not records:
            raise RecordError(f"no record is of profile {options.profile!r}: there are {', '.join(profiles)}")
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    output = console()
    if options.markdown:
        output.width = 10_000  # a row is a line
    render_times(times_to_metric(records), output, markdown=options.markdown)
    return 0
