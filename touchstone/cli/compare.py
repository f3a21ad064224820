"""`touchstone compare A B`."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = "Compare two sets of records. B is judged against A."
EPILOG = """\
A and B are record files or directories of them, such as results/one-machine
and results/another.

output:
  One table for every spec that both sides ran on the same data. It lists the
  metrics, training time, tokens/s, memory and energy of both sides with their
  ratio, and says whether the difference is statistically significant and large
  enough to matter. Runs that cannot be compared (another spec, other data,
  another precision) are listed below with the reason.

  Runs of the open division (another recipe) are compared only with each other.
  Use `touchstone times` to see how long engines, precisions and divisions took
  to reach the expected metric on one machine.

examples:
  touchstone compare results/xeon-2c-24g-1f3a9c results/h100-80gb-77ab01
  touchstone compare before.json after.json
  touchstone compare results/xeon-2c-24g-1f3a9c --by engine

exit codes:
  0 B is as good as A or better; 1 B is significantly worse; 2 nothing is
  comparable, some runs differ in spec, data or precision, or a record or an
  option is wrong; 3 one side lacks some runs.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a record, or a directory of records")
    parser.add_argument("b", metavar="B", nargs="?", help="the records to judge (optional with --by engine)")
    parser.add_argument(
        "--by",
        choices=("files", "engine"),
        default="files",
        help="compare A with B, or the engines found in A and B (default: files)",
    )
    parser.add_argument(
        "--engines", nargs=2, metavar="NAME", help="with --by engine: the two engines to compare, A first"
    )


def run(options: argparse.Namespace) -> int:
    from touchstone.cli.shared import console
    from touchstone.comparing.compare import compare, split_engines
    from touchstone.interface.options import OptionError
    from touchstone.records.record import read_records

    if options.by == "engine":
        records = [record for side in (options.a, options.b) if side for record in read_records(Path(side))]
        sides = split_engines(records, engines=options.engines or ())
        (name_a, a), (name_b, b) = sides.items()
        comparison = compare(a, b, names=(name_a, name_b), by="engine")
    elif options.engines:
        raise OptionError("--engines: also give --by engine")
    elif options.b is None:
        raise OptionError("compare needs two sides, A and B (or --by engine)")
    else:
        comparison = compare(options.a, options.b)
    console().print(comparison)
    return int(comparison.exit_code)
