"""`python -m suite` (also `touchstone`): look at data, measure expectations, describe this machine, compare records."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from suite.commands import calibrate, compare, hardware, show, times

COMMANDS = {"show": show, "calibrate": calibrate, "hardware": hardware, "compare": compare, "times": times}
EPILOG = """\
a first hour:
  pytest suite/                                check the stages, then train all
                                               tasks on tiny embedded data
  python -m suite show token-classification    what a model is given: words,
                                               tokens, labels, batches
  python -m suite hardware                     what a record says of this machine
  pytest suite/ --profile small --mirror DIR   train on real data
  python -m suite compare results/A results/B  two machines side by side
  python -m suite times results/A              how fast each engine trained

exit codes:
  0 done; 1 done, and the answer is bad (a run failed); 2 not to be done as
  asked (a wrong option, missing data); 130 interrupted. `compare` has its own.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m suite",
        description="Touchstone: is this training pipeline right, and how fast is it here? The suite itself is "
        "run by pytest (pytest suite/); these commands look at its parts.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        command.add_parser(subparsers, name)
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
