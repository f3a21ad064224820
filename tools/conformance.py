"""Write docs/conformance.md: all checks on all modules of suite/implementations.

python -m tools.conformance                    # takes minutes
python -m tools.conformance --examples 20 --only run_ner --only seqeval --output page.md
"""

from __future__ import annotations

import argparse
import ast
import pkgutil
import textwrap
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import touchstone.suite.implementations as package
from touchstone.files import write_atomically
from touchstone.properties.conformance import Examined, conformance
from touchstone.properties.conformance_page import markdown

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "conformance.md"
INSTALLED = ("transformers", "seqeval", "sacrebleu", "rouge-score", "torchmetrics", "torch", "numpy")
HEAD = """\
# Conformance

What the checks of [the contract](contract.md) say about code that people use: the course's chapter 7, transformers'
example scripts, and libraries from PyPI. Written by `python -m tools.conformance` with {examples} examples per test.

Each implementation is an adapter in [suite/implementations](../suite/implementations). An adapter to an installed
library calls it. The functions of the course and of the scripts cannot be imported, because they are nested in
notebooks and in `main()`; so they are written anew, with the same behaviour. Each adapter says for which arguments
its code is meant (`supports`) and which conventions it follows (`choices`); the code is asked for nothing else.

A wrong result that is understood stands in a file of known failures beside the adapter, with its reason, and is marked
`k`. What is marked `✗` is new. The worst of them are in [findings](findings.md#found-by-the-properties).

To see your own code in the same way:

    touchstone conformance my.module --md my.md --html my.html

Versions: {versions}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.conformance", description=__doc__)
    parser.add_argument("--examples", metavar="N", type=int, default=60, help="examples per test (default: 60)")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="a module of suite/implementations (repeatable)"
    )
    parser.add_argument("--output", metavar="FILE", type=Path, default=PAGE)
    options = parser.parse_args()
    names = [f"{package.__name__}.{name}" for name in options.only or implementations()]
    examined = conformance(names, examples=options.examples, progress=lambda each: print(line(each), flush=True))
    write_atomically(options.output, page(examined, examples=options.examples))


def implementations() -> list[str]:
    """Return the names of the modules in suite/implementations, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def page(examined: list[Examined], *, examples: int) -> str:
    head = HEAD.format(examples=examples, versions=versions()).strip().split("\n\n")
    parts = [part if part.startswith(("#", " ")) else textwrap.fill(part, 118, break_on_hyphens=False) for part in head]
    return "\n\n".join([*parts, what_they_are(examined), markdown(examined)])


def what_they_are(examined: list[Examined]) -> str:
    """Return a table of the implementations with the first sentence of their docstrings."""
    rows = ["| # | implementation | what it stands for |", "| --- | --- | --- |"]
    for number, each in enumerate(examined, start=1):
        name = each.name.rpartition(".")[2]
        source = (Path(package.__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
        says = " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())
        rows.append(f"| {number} | [{name}](../suite/implementations/{name}.py) | {says} |")
    return "\n".join(rows)


def versions() -> str:
    found = []
    for name in INSTALLED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} is not installed")
    return ", ".join(found)


def line(each: Examined) -> str:
    return each.problem or each.summary.headline(each.name).removeprefix("contract: ")


if __name__ == "__main__":
    main()
