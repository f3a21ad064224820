"""Where commands print: in colour on a terminal, plain and as wide as needed anywhere else."""

from __future__ import annotations

import sys

from rich.console import Console

PIPE_WIDTH = 120


def console() -> Console:
    """On standard output. NO_COLOR and COLUMNS are honoured, as everywhere."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    import os

    return Console(
        highlight=False, no_color=True, force_terminal=False, width=int(os.environ.get("COLUMNS") or PIPE_WIDTH)
    )
