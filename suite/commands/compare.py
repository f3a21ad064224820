"""`python -m suite compare A B`."""

from __future__ import annotations

import argparse

EPILOG = """\
A and B are records (files) or directories of them, such as
results/one-machine and results/another.

what you see:
  for every task that both sides ran with the same spec: metric, time, tokens/s,
  memory and energy side by side with their ratio, and whether the difference in
  quality is more than the spread between seeds. What cannot be compared (another
  spec, other data, another metric signature) is listed with the reason.

examples:
  python -m suite compare results/xeon-2c-24g-1f3a9c results/h100-80gb-77ab01
  python -m suite compare before.json after.json
  python -m suite compare results/xeon-2c-24g-1f3a9c --by engine

exit codes:
  0 compared, alike in quality; 1 compared, quality differs; 2 a record cannot
  be read, or a wrong option; 3 nothing was comparable.
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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import sys
    from pathlib import Path

    from suite.commands.terminal import console
    from suite.compare import compare, render
    from suite.record import RecordError, read_records

    if options.by == "files" and options.b is None:
        print("error: compare needs two sides, A and B (or --by engine for the engines within A)", file=sys.stderr)
        return 2
    a, b = Path(options.a), Path(options.a if options.b is None else options.b)
    try:
        comparison = compare(read_records(a), read_records(b), names=(a.stem, b.stem), by=options.by)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    render(comparison, console())
    return int(comparison.exit_code)
