"""Prints which check catches which planted bug, and writes docs/planted-bugs.md."""

from __future__ import annotations

import argparse

from rich.console import Console

from tests.planted import BUGS
from tests.planted.table import PAGE, matrix, page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("--page-only", action="store_true", help="write the page and run no check")
    parser.add_argument("--seed", type=int, default=0, help="seed of the examples (default: 0)")
    arguments = parser.parse_args()
    PAGE.write_text(page(), encoding="utf-8")
    console = Console()
    console.width = max(console.width, 120)  # a narrower table would be cut
    console.print(f"{PAGE.relative_to(PAGE.parents[1])}: {len(BUGS)} bugs")
    if not arguments.page_only:
        console.print("* caught as named, + caught too, ! named and not caught at the first look\n")
        for module in dict.fromkeys(bug.module for bug in BUGS):
            console.print(matrix(module, seed=arguments.seed))


if __name__ == "__main__":
    main()
