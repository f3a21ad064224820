"""The command `touchstone`: look at data, measure expectations, describe this machine, compare records."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "show": "look at a task's data as the model is given it",
    "calibrate": "measure what a task's metric should be",
    "hardware": "what a record says about this machine",
    "compare": "records of two machines or engines side by side",
    "times": "how long each engine took to the expected metric",
}
EPILOG = """\
a first hour:
  pytest suite/                                check the stages, then train all
                                               tasks on tiny embedded data
  touchstone show token-classification    what a model is given: words,
                                               tokens, labels, batches
  touchstone hardware                     what a record says of this machine
  pytest suite/ --profile small --mirror DIR   train on real data
  touchstone compare results/A results/B  two machines side by side
  touchstone times results/A              how fast each engine trained

exit codes:
  0 done; 1 done, and the answer is bad (a run failed); 2 not to be done as
  asked (a wrong option, missing data); 130 interrupted. `compare` has its own.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="touchstone",
        description="Touchstone: is this training pipeline right, and how fast is it here? The suite itself is "
        "run by pytest (pytest suite/); these commands look at its parts.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = next((word for word in arguments if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        if name == chosen:  # only then is it imported: some need torch, and `--help` should not wait for that
            importlib.import_module(f"touchstone.cli.{name}").add_parser(subparsers, name)
        else:
            subparsers.add_parser(name, help=summary)
    options = parser.parse_args(arguments)
    # Data may hold characters that this terminal's encoding lacks: they are spelt out, not fatal.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
