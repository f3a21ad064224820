"""Run the zoo and write docs/zoo.md, print a faulty script, or audit one script and print the report."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.zoo import matrix, page
from tests.zoo.fault import all_faults, clean_scripts
from tests.zoo.run import audit_text, make_assets


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("-j", "--jobs", type=int, default=2, help="scripts at a time (2)")
    parser.add_argument("--only", default="", help="only scripts whose name has this text; nothing is written")
    parser.add_argument("--missing", action="store_true", help="only scripts that the record of the last run lacks")
    commands = parser.add_subparsers(dest="command", metavar="{all,render,show,run}")
    commands.add_parser("all", help="audit all scripts and write the record and docs/zoo.md (the default)")
    commands.add_parser("render", help="write docs/zoo.md from the record of the last run")
    show = commands.add_parser("show", help="print a faulty or clean script")
    show.add_argument("name")
    run = commands.add_parser("run", help="audit one script and print the report")
    run.add_argument("name")
    run.add_argument("--budget", default=None)
    run.add_argument("--probe", action="append", default=None)
    options = parser.parse_args(arguments)
    if options.command in ("show", "run"):
        try:
            text, budget = text_of(options.name)
        except KeyError:
            print(f"{options.name}: there is no such fault or clean script", file=sys.stderr)
            return 2
        if options.command == "show":
            print(text, end="")
            return 0
        return run_one(options.name, text, options.budget or budget, options.probe)
    if options.command != "render":
        last = matrix.load() if options.missing else None
        matrix.run_all(options.jobs, Progress(), only=options.only, record=last)
        if options.only:
            return 0
    record = matrix.load()
    page.PAGE.write_text(page.page(record), encoding="utf-8")
    print(", ".join(f"{name} {value}" for name, value in page.totals(record).items()))
    return 0


def text_of(name: str) -> tuple[str, str]:
    """Return the text of a faulty or clean script, and the budget that it needs."""
    scripts = {path.stem: path for path in clean_scripts()}
    if name in scripts:
        return scripts[name].read_text(encoding="utf-8"), "default"
    fault = {fault.id: fault for fault in all_faults()}[name]
    return fault.text(), fault.budget


def run_one(name: str, text: str, budget: str, probes: Sequence[str] | None) -> int:
    """Audit one script, print its findings, and return the exit code of the audit."""
    with tempfile.TemporaryDirectory() as temporary:
        assets = make_assets(Path(temporary) / "assets")
        report = audit_text(text, assets, budget=budget, probes=probes)
    if "error" in report:
        print(report["error"], file=sys.stderr)
        return 2
    print(f"{name}: {report['task']}, ran {report['ran']} of {report['of']} in {report['seconds']:.1f} s")
    for each in report["findings"]:
        print(f"{each['outcome']:12}{each['probe']}: {each['message']}")
        for key in ("cause", "measured", "expected"):
            if each[key] not in ("", None) and each["outcome"] in ("fail", "warn"):
                print(f"{'':12}{key}: {each[key]}")
    return int(any(each["outcome"] == "fail" for each in report["findings"]))


class Progress:
    """Prints one line per script."""

    def __init__(self) -> None:
        self.done = 0
        self.started = time.monotonic()

    def __call__(self, line: str, of: int) -> None:
        self.done += 1
        print(f"[{self.done}/{of}, {time.monotonic() - self.started:.0f} s] {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
