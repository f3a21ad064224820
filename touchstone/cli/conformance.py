"""`touchstone conformance IMPLEMENTATION...`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

DESCRIPTION = "Run the checks of the contract on several implementations, and show which hold where."
EPILOG = """\
output:
  One line for each implementation, and a matrix of the checks that do not hold
  everywhere. --md, --html and --json write the whole matrix, with the smallest
  failing example of each check and a line of Python that repeats it.

examples:
  touchstone conformance touchstone.suite.implementations.transformers
  touchstone conformance my.stages other.stages --html conformance.html
  touchstone conformance my.stages --known my-known.toml
  touchstone conformance my.data:tokenize --as map:token-classification

exit codes:
  0 no result is wrong; 1 a result is wrong that is not a known failure;
  2 an implementation cannot be imported.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "implementations", metavar="IMPLEMENTATION", nargs="+", help="package.module or package.module:object"
    )
    parser.add_argument(
        "--as",
        dest="shape",
        metavar="SHAPE",
        default="",
        help="what they are, if not modules with functions of the contract: map:token-classification, ... "
        "(docs/contract.md)",
    )
    parser.add_argument("--md", metavar="FILE", type=Path, help="write the matrix as Markdown")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the matrix as one self-contained page")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all outcomes as JSON")
    parser.add_argument("--examples", metavar="N", type=int, default=60, help="examples per test (default: 60)")
    parser.add_argument("--known", metavar="FILE", type=Path, help="a TOML file of known failures (docs/contract.md)")
    parser.add_argument("-j", "--jobs", metavar="N", type=int, default=1, help="processes at a time (default: 1)")


def run(options: argparse.Namespace) -> int:
    from touchstone.cli.shared import console
    from touchstone.files import write_atomically
    from touchstone.properties.conformance import Examined, as_json, conformance
    from touchstone.properties.conformance_page import html, markdown, matrix
    from touchstone.properties.known import read_known

    output = console()
    if options.known:
        read_known(options.known)  # report what is wrong with it before anything runs

    def progress(each: Examined) -> None:
        output.print(each.problem or each.summary.headline(each.name).removeprefix("contract: "), highlight=False)

    names = list(dict.fromkeys(options.implementations))
    examined = conformance(
        names,
        examples=options.examples,
        shape=options.shape,
        known_file=options.known,
        jobs=options.jobs,
        progress=progress,
    )
    output.print(matrix(examined))
    for path, text in (
        (options.md, markdown),
        (options.html, html),
        (options.json, lambda examined: json.dumps(as_json(examined), indent=1) + "\n"),
    ):
        if path is not None:
            write_atomically(path, text(examined))
    if any(each.problem for each in examined):
        return 2
    return 1 if any(each.summary.failed(strict=False) for each in examined) else 0
