"""`touchstone compare A B`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\
A and B are records (files) or directories of them, such as
results/one-machine and results/another. B is judged against A.

what you see:
  for every spec that both sides ran on the same data: metric, time, tokens/s,
  memory and energy side by side with their ratio, and whether the difference is
  significant and large enough to matter. What cannot be compared (another spec,
  other data, another metric signature) is listed with the reason.

  Precisions are not compared with each other, and the open division (another
  recipe to the same quality) with itself alone. How long each took to the
  expected metric on one machine is what `times` shows.

examples:
  touchstone compare results/xeon-2c-24g-1f3a9c results/h100-80gb-77ab01
  touchstone compare before.json after.json
  touchstone compare results/xeon-2c-24g-1f3a9c --by engine

exit codes:
  0 B is the same or better; 1 B is significantly worse; 2 nothing was
  comparable, something was measured otherwise, or a record or an option is
  wrong; 3 the other side lacks some runs.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    parser = subparsers.add_parser(
        name,
        help="records of two machines or engines side by side",
        description="Sets records side by side, with ratios, and says what is not comparable and why.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", metavar="A", help="a record, or a directory of records")
    parser.add_argument("b", metavar="B", nargs="?", help="another (not needed with --by engine)")
    parser.add_argument(
        "--by", choices=("files", "engine"), default="files", help="what to set side by side (default: files)"
    )
    parser.add_argument("--engines", nargs=2, metavar="NAME", help="with --by engine: which two, A first")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import sys
    from pathlib import Path

    from touchstone.cli.terminal import console
    from touchstone.comparing.compare import compare, render, split_engines
    from touchstone.records.record import RecordError, read_records

    try:
        if options.by == "engine":
            records = [record for side in (options.a, options.b) if side for record in read_records(Path(side))]
            sides = split_engines(records, engines=options.engines or ())
        elif options.b is None or options.engines:
            print("error: compare needs two sides, A and B (--engines goes with --by engine)", file=sys.stderr)
            return 2
        else:
            names = _names(Path(options.a), Path(options.b))
            sides = {name: read_records(Path(side)) for name, side in zip(names, (options.a, options.b), strict=True)}
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    (name_a, a), (name_b, b) = sides.items()
    comparison = compare(a, b, names=(name_a, name_b), by=options.by)
    render(comparison, console())
    return int(comparison.exit_code)


def _names(a: Path, b: Path) -> tuple[str, str]:
    """Short, but never the same for both."""
    return (a.stem, b.stem) if a.stem != b.stem else (f"A: {a}", f"B: {b}")
