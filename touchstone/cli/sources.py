"""The options that `show` and `calibrate` share: which spec, and where its data comes from."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from touchstone.interface import options as parsing
from touchstone.interface.options import OptionError, Overrides

if TYPE_CHECKING:
    from touchstone.sources.source import Source
    from touchstone.specs.spec import Spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "task", metavar="TASK", help="a task such as masked-lm, or a variant of one such as token-classification+first"
    )
    parser.add_argument(
        "--profile", default="embedded", metavar="NAME", help=f"{', '.join(parsing.PROFILES)} (default: embedded)"
    )
    parser.add_argument(
        "--spec", metavar="FILE", help="the TOML file to read the spec from, instead of the suite's own"
    )
    parser.add_argument(
        "--mirror",
        metavar="DIR",
        help="take hub data and checkpoints from DIR/datasets/ORG/NAME and DIR/models/ORG/NAME",
    )
    parser.add_argument(
        "--dataset", action="append", default=[], metavar="TASK=PATH", help="another data set for the task"
    )
    parser.add_argument(
        "--checkpoint", action="append", default=[], metavar="TASK=PATH", help="another checkpoint for the task"
    )


def chosen_spec(options: argparse.Namespace) -> Spec:
    """Raises OptionError, SpecError."""
    from touchstone.interface import plan

    parsing.one_of(options.profile, parsing.PROFILES, option="--profile", what="profile")
    if options.spec is not None and not Path(options.spec).is_file():
        raise OptionError(f"--spec {options.spec}: there is no such file")
    files = [] if options.spec is None else [Path(options.spec).resolve()]
    return plan.choose_specs([options.task], profile=options.profile, files=files)[0]


def overrides(options: argparse.Namespace) -> Overrides:
    """Raises OptionError."""
    from touchstone.interface import plan

    tasks = plan.task_names()
    return Overrides(
        parsing.parse_assignments(options.dataset, option="--dataset", tasks=tasks),
        parsing.parse_assignments(options.checkpoint, option="--checkpoint", tasks=tasks),
    )


def open_spec(options: argparse.Namespace) -> tuple[Spec, Source]:
    """Raises OptionError, SpecError, SourceError."""
    from touchstone.sources import Access, open_source

    spec = chosen_spec(options)
    given = {name: Path(path) for name, path in overrides(options).given(spec.task).items()}
    access = Access(mirror=parsing.parse_mirror(options.mirror), **given)
    return spec, open_source(spec.data, spec.checkpoint, access=access)


def reporting_problems(work: Callable[[], int]) -> int:
    """Do the work; what is wrong with options, specs, data or records becomes one message and exit code 2."""
    from touchstone.files import RecordError
    from touchstone.sources.source import SourceError
    from touchstone.specs.expectation import ExpectationError
    from touchstone.specs.spec import SpecError

    try:
        return work()
    except (OptionError, SpecError, SourceError, ExpectationError, RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def count(text: str) -> int:
    """For argparse: a whole number from 1 on."""
    if (number := natural(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def natural(text: str) -> int:
    """For argparse: a whole number from 0 on."""
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)
