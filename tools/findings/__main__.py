"""`python -m tools.findings run` and `python -m tools.findings page`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tools.findings.page import page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.findings", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="audit the subjects and write record.json")
    run.add_argument("--examples", type=Path, required=True, help="the folder of transformers' example scripts")
    run.add_argument("--metrics", type=Path, required=True, help="the folder `metrics` of evaluate's repository")
    run.add_argument("--only", action="append", metavar="ID", help="audit only this subject (repeatable)")
    run.add_argument("--budget", choices=("fast", "default", "deep"), default="default")
    commands.add_parser("page", help="print docs/findings.md")
    options = parser.parse_args()
    if options.command == "page":
        print(page(), end="")
        return
    from tools.findings import run as runs

    record = runs.run(
        examples=options.examples.resolve(),
        metrics=options.metrics.resolve(),
        only=options.only,
        budget=options.budget,
    )
    runs.RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
