"""Parts that several commands share: the console, the options that choose a spec and its data, and number types."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from touchstone.interface import options as parsing
from touchstone.interface.options import OptionError, Overrides

if TYPE_CHECKING:
    from rich.console import Console

    from touchstone.sources.source import Source
    from touchstone.specs.spec import Spec

PIPE_WIDTH = 120
"""Line width if the output is not a terminal and COLUMNS is not set."""


def console() -> Console:
    """Return a console on standard output: with colour on a terminal, plain anywhere else."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    width = int(os.environ.get("COLUMNS") or PIPE_WIDTH)
    return Console(highlight=False, no_color=True, force_terminal=False, width=width)


def add_spec_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the task and the options that say where its spec, data and checkpoint come from."""
    add = parser.add_argument
    add("task", metavar="TASK", help="a task such as masked-lm, or a variant such as token-classification+first")
    add("--profile", default="embedded", metavar="NAME", help=f"{', '.join(parsing.PROFILES)} (default: embedded)")
    add("--spec", metavar="FILE", help="read the spec from this TOML file instead of the suite's own")
    add(
        "--mirror",
        metavar="DIR",
        help="read hub data and checkpoints from DIR/datasets/ORG/NAME and DIR/models/ORG/NAME",
    )
    add("--dataset", action="append", default=[], metavar="TASK=PATH", help="use another data set for the task")
    add("--checkpoint", action="append", default=[], metavar="TASK=PATH", help="use another checkpoint for the task")


def chosen_spec(options: argparse.Namespace) -> Spec:
    """Load the spec of the chosen task and profile.

    Raises:
        OptionError: the task, the profile or the file does not exist.
        SpecError: the spec is not valid.
    """
    from touchstone.interface import plan

    parsing.one_of(options.profile, parsing.PROFILES, option="--profile", what="profile")
    if options.spec is not None and not Path(options.spec).is_file():
        raise OptionError(f"--spec {options.spec}: there is no such file")
    files = [] if options.spec is None else [Path(options.spec).resolve()]
    return plan.choose_specs([options.task], profile=options.profile, files=files)[0]


def overrides(options: argparse.Namespace) -> Overrides:
    """Parse --dataset and --checkpoint.

    Raises:
        OptionError: an item is not TASK=PATH, or the task or the path does not exist.
    """
    from touchstone.interface import plan

    tasks = plan.task_names()
    return Overrides(
        parsing.parse_assignments(options.dataset, option="--dataset", tasks=tasks),
        parsing.parse_assignments(options.checkpoint, option="--checkpoint", tasks=tasks),
    )


def open_spec(options: argparse.Namespace) -> tuple[Spec, Source]:
    """Load the chosen spec and open its source.

    Raises:
        OptionError: an option is wrong.
        SpecError: the spec is not valid.
        SourceError: the data or the checkpoint is not available.
    """
    from touchstone.sources import Access, open_source

    spec = chosen_spec(options)
    given = {name: Path(path) for name, path in overrides(options).given(spec.task).items()}
    access = Access(mirror=parsing.parse_mirror(options.mirror), **given)
    return spec, open_source(spec.data, spec.checkpoint, access=access)


def positive(text: str) -> int:
    """Convert a command-line value to an integer of at least 1."""
    if (number := non_negative(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def non_negative(text: str) -> int:
    """Convert a command-line value to an integer of at least 0 with at most 9 digits."""
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to 999999999")
    return int(text)
