"""`touchstone audit SCRIPT [ARGUMENTS]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from touchstone.interface.options import OptionError, one_of

if TYPE_CHECKING:
    from touchstone.auditing.finding import Report
    from touchstone.auditing.probe import Probe

DESCRIPTION = "Check a training script: is what it trains on, computes and reports what it says?"
EPILOG = """\
The script runs unmodified until it begins to train. Touchstone then checks the
batches, the labels, the loss, the optimizer, the evaluation and the data order,
prints its findings, and ends the script. Options stand before the script;
everything after it is the script's own.

examples:
  touchstone audit train.py --model_name_or_path X --output_dir Y
  touchstone audit --budget fast --json audit.json --html audit.html train.py
  touchstone audit --probe special-tokens-unlabelled train.py
  touchstone audit --list
  touchstone audit --explain accumulation-divided

exit codes:
  0 nothing is wrong; 1 a fault is proved; 2 it could not judge (the script
  failed, or never trained), an option is wrong, or a file cannot be written;
  130 interrupted.
"""
RUNNERS = ("python", "python3", "accelerate", "torchrun", "deepspeed", "uv", "poetry")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "touchstone audit [OPTIONS] SCRIPT [ARGUMENTS]\n       touchstone audit --list"
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the report as JSON")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the report as one page")
    parser.add_argument(
        "--budget",
        choices=("fast", "default", "deep"),
        default="default",
        help="fast: batches and labels, 10 s; default: also forward and backward passes, a minute; "
        "deep: also short trainings, several minutes",
    )
    parser.add_argument("--seconds", type=_seconds, metavar="N", help="another time limit for all probes together")
    parser.add_argument("--task", help="the task, where the model's head does not tell")
    parser.add_argument("--probe", action="append", metavar="ID", help="run only this probe (repeatable)")
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="ID=REASON",
        help="show this probe's finding with your reason, and leave it out of the exit code (repeatable)",
    )
    parser.add_argument("--verbose", action="store_true", help="list every probe with its message")
    parser.add_argument("--list", action="store_true", help="list all probes and end")
    parser.add_argument("--explain", metavar="ID", help="say what a probe's findings mean and what to do, and end")
    parser.add_argument("script", nargs="?", metavar="SCRIPT", help="the training script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENTS", help="the script's own arguments")


def run(options: argparse.Namespace) -> int:
    from touchstone.auditing.probe import chosen_probes
    from touchstone.auditing.script import CannotJudge, audit_script
    from touchstone.auditing.subject import TASKS, UNKNOWN

    if options.list:
        _print_probes()
        return 0
    if options.explain:
        _print_explanation(*chosen_probes(UNKNOWN, [options.explain]))
        return 0
    # A wrong option must not wait for the script, which may load a model for minutes before it trains.
    if options.task is not None:
        one_of(options.task, (*TASKS, UNKNOWN), option="--task", what="task")
    ignored = _reasons(options.ignore)
    chosen_probes(UNKNOWN, [*(options.probe or ()), *ignored])
    script = script_file(options.script)
    paths = {kind: path.absolute() for kind in ("json", "html") if (path := getattr(options, kind)) is not None}
    try:
        with StatusLine() as status:
            report = audit_script(
                script,
                options.arguments,
                budget=options.budget,
                probes=options.probe,
                task=options.task,
                seconds=options.seconds,
                progress=status.show,
            )
    except CannotJudge as reason:
        print(f"could not judge: {reason}{_misplaced(options.arguments)}", file=sys.stderr)
        return 2
    report = report.ignoring(ignored)
    unwritten = _failed_to_write(report, paths)  # before printing, which ends early if a pipe is closed
    _print(report, verbose=options.verbose)
    return 2 if unwritten else report.exit_code


def _print(report: Report, *, verbose: bool) -> None:
    from touchstone.auditing.reporting.table import as_table, as_text
    from touchstone.cli.shared import console

    out = console()
    if out.is_terminal:
        out.print()  # the script's own output stands above
        out.print(as_table(report, verbose=verbose))
    else:
        print(as_text(report, width=out.width, verbose=verbose))
    if any(report.counts[kind] for kind in ("fail", "warn")):
        out.print("touchstone audit --explain ID says what a finding means and what to do", style="dim")


def script_file(text: str | None) -> Path:
    """Return the path of the script.

    Raises:
        OptionError: it is missing, no file, or no Python script. The message says what to type instead.
    """
    if text is None:
        raise OptionError("no script is given: touchstone audit [OPTIONS] SCRIPT [ARGUMENTS]")
    path = Path(text)
    if path.is_dir():
        scripts = sorted(each.name for each in path.glob("*.py"))
        hint = f", such as {path / scripts[0]}" if scripts else ""
        raise OptionError(f"{text} is a folder: give the training script in it{hint}")
    if path.suffix == ".ipynb":
        raise OptionError(
            f"{text} is a notebook: call touchstone.audit(trainer) in it before trainer.train(), or convert it: "
            f"jupyter nbconvert --to script {text}"
        )
    if path.is_file():
        return path
    if path.exists():
        raise OptionError(f"{text} is not a regular file: give the path of the training script")
    if path.name in RUNNERS:
        raise OptionError(f"{text} is a command, not a script: leave it out, as in touchstone audit train.py")
    module = Path(*text.split(".")).with_suffix(".py") if text.replace(".", "").isidentifier() else None
    if module is not None and module.is_file():
        raise OptionError(f"{text} is the name of a module: give its file, {module}")
    near = [str(each) for each in path.parent.glob("*.py")] if path.parent.is_dir() else []
    close = get_close_matches(text, near, n=1)
    raise OptionError(f"{text}: there is no such file" + (f": did you mean {close[0]}?" if close else ""))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _reasons(items: Sequence[str]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for item in items:
        probe, _, reason = item.partition("=")
        if not reason.strip():
            raise OptionError(f'--ignore {item}: give a reason, such as --ignore {probe or "ID"}="why it is right"')
        if probe in reasons:
            raise OptionError(f"--ignore is given twice for {probe}")
        reasons[probe] = reason.strip()
    return reasons


def _misplaced(arguments: Sequence[str]) -> str:
    """Return a hint if the script was given options that are Touchstone's."""
    own = {
        "--json",
        "--html",
        "--budget",
        "--seconds",
        "--task",
        "--probe",
        "--ignore",
        "--verbose",
        "--list",
        "--explain",
    }
    found = [each for each in arguments if each.partition("=")[0] in own]
    return f" ({found[0]} went to the script: options of touchstone stand before it)" if found else ""


def _failed_to_write(report: Report, paths: dict[str, Path]) -> bool:
    """Write the report to the files that were asked for. Print an error if one of them cannot be written."""
    from touchstone.files import RecordError

    failed = False
    for kind, path in paths.items():
        try:
            report.save(path) if kind == "json" else report.save_html(path)
        except RecordError as error:
            print(f"error: --{kind} {error}", file=sys.stderr)
            failed = True
    return failed


def _print_probes() -> None:
    from rich.table import Table
    from rich.text import Text

    from touchstone.auditing.probe import load_probes
    from touchstone.auditing.subject import TASKS
    from touchstone.cli.shared import console

    groups: dict[str, list[Probe]] = {}
    for each in load_probes().values():
        groups.setdefault(each.group, []).append(each)
    out = console()
    for group, probes in groups.items():
        out.print(Text(group, style="bold"))
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for each in probes:
            tasks = "" if set(TASKS) <= set(each.tasks) else f"  [{', '.join(each.tasks)}]"
            table.add_row(f"  {each.id}", Text(each.budget, style="dim"), Text.assemble(each.says, (tasks, "dim")))
        out.print(table)
        out.print()
    out.print(Text(f"{sum(map(len, groups.values()))} probes; fast ones run with every budget"))


def _print_explanation(probe: Probe) -> None:
    from rich.text import Text

    from touchstone.auditing.explain import explained
    from touchstone.cli.shared import console

    out = console()
    out.print(Text.assemble((probe.id, "bold"), f": {probe.says}"))
    for heading, text in explained(probe).items():
        out.print()
        out.print(Text(heading, style="bold"))
        out.print(Text(text))


class StatusLine:
    """One line on the standard error that says which probe runs, if that is a terminal. It starts no thread."""

    def __enter__(self) -> StatusLine:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self.active = False
        return self

    def show(self, probe: Probe, index: int, count: int) -> None:
        """Show a probe: "[3/31] Special tokens and padding have no label."."""
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            text = f"[{index + 1}/{count}] {probe.says}"[: self.console.width - 1]
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self.active = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.active:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
