"""The command `touchstone`: show data, measure expectations, describe this machine, compare records."""

from __future__ import annotations

import argparse
import importlib
import sys
import textwrap
from collections.abc import Sequence

import touchstone

COMMANDS = {
    "audit": "check a training script: data, loss, optimizer, evaluation",
    "show": "show a task's data as the model receives it",
    "calibrate": "measure the expected metric of a task",
    "hardware": "show what records say about this machine",
    "compare": "compare the records of two machines, commits or engines",
    "conformance": "run the checks on several implementations, and show which hold where",
    "times": "show how long each engine trained to the expected metric",
}
"""Each command and its summary. The module `touchstone.cli.NAME` holds DESCRIPTION, EPILOG, add_arguments and run."""
NEEDS_SUITE = ("show", "calibrate", "hardware")
"""The commands that use the reference's pipelines. They need the versions that touchstone[suite] asks for."""
DESCRIPTION = """\
Touchstone tests and times the six NLP training pipelines of the Hugging Face
course. The suite itself is run by pytest (pytest suite/); these commands
inspect its parts."""
EPILOG = """\
your first hour:
  pytest suite/                               test the stages, then train all
                                              tasks on the embedded data
  touchstone show token-classification        see what the model receives:
                                              words, tokens, labels, batches
  touchstone hardware                         see what records say about this
                                              machine
  pytest suite/ --profile small --mirror DIR  train on real data
  touchstone compare results/A results/B      compare two machines
  touchstone times results/A                  compare training times

exit codes:
  0 success; 1 a run failed; 2 an option is wrong, or data or a package is
  missing; 130 interrupted. `compare` has its own exit codes.
"""
USER_ERRORS = (
    ("touchstone.interface.options", "OptionError"),
    ("touchstone.auditing.probe", "UnknownProbe"),
    ("touchstone.files", "RecordError"),
    ("touchstone.properties.known", "KnownError"),
    ("touchstone.sources.source", "SourceError"),
    ("touchstone.specs.spec", "SpecError"),
    ("touchstone.specs.expectation", "ExpectationError"),
)
"""Exceptions whose message is written for the user: it is printed without a traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    options = _parser(chosen=chosen).parse_args(arguments)
    # Data may contain characters that the terminal's encoding lacks: print these as escapes instead of failing.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head or less, has closed the pipe
        sys.stderr.close()
        return 0
    except Exception as error:
        message = _message_for_user(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2


def _parser(*, chosen: str | None) -> argparse.ArgumentParser:
    """Build the parser. Only the chosen command's module is imported, so that `--help` does not wait for torch."""
    parser = argparse.ArgumentParser(
        prog="touchstone",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = subparsers.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == chosen:
            outdated = _outdated_package() if name in NEEDS_SUITE else None
            if outdated is not None:
                command.exit(2, f"error: {outdated}\n")
            try:
                module = importlib.import_module(f"touchstone.cli.{name}")
            except ModuleNotFoundError as error:
                command.exit(2, f"error: {_missing_package(error)}\n")
            command.description, command.epilog = textwrap.fill(module.DESCRIPTION, 80), module.EPILOG
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


class _Version(argparse.Action):
    """Look the version up only when it is requested."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"touchstone {touchstone.__version__}")
        parser.exit()


def _message_for_user(error: Exception) -> str | None:
    """Return the message to print instead of a traceback, or None if the error is a bug."""
    if isinstance(error, ModuleNotFoundError):
        return _missing_package(error)
    # A class whose module was never imported cannot have been raised.
    classes = tuple(getattr(sys.modules[module], name) for module, name in USER_ERRORS if module in sys.modules)
    return str(error) if isinstance(error, classes) else None


def _outdated_package() -> str | None:
    """Return a message that names the first package older than touchstone[suite] allows, or None.

    The bounds are those of the installed distribution. A clone that is not installed has none.
    """
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in requires("touchstone") or ()]
    except PackageNotFoundError:
        return None
    for each in requirements:
        if each.marker is None or not each.marker.evaluate({"extra": "suite"}):
            continue
        try:
            installed = version(each.name)
        except PackageNotFoundError:
            continue  # some commands do without it
        if not each.specifier.contains(installed, prereleases=True):
            return (
                f"this command needs {each.name} {each.specifier}, and {installed} is installed; "
                'run: pip install --upgrade "touchstone[suite]"'
            )
    return None


def _missing_package(error: ModuleNotFoundError) -> str:
    package = (error.name or "").partition(".")[0]
    if package == "touchstone":
        raise error
    return f'the Python package {package!r} is not installed; run: pip install "touchstone[suite]"'


if __name__ == "__main__":
    sys.exit(main())
