"""Mutate the reference's stages and count how many mutants the checks catch: `python -m tools.mutation`.

A mutant is one small change of one expression: another comparison, a number one larger, a condition negated, a default
replaced. Each is run as an implementation under all checks of its module's functions. Some survivors compute the same
as the reference, which only a reader can tell.

    python -m tools.mutation --sample 200 --seed 1 -j 2        # a sample of all mutants; minutes to an hour
    python -m tools.mutation --module alignment
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import multiprocessing
import random
import sys
import time
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from touchstone.contract import NAMES
from touchstone.properties.check import NotOffered, all_checks, run_check
from touchstone.properties.failure import CheckFailed

ROOT = Path(__file__).parents[1]
STAGES = ROOT / "reference" / "stages"
EXAMPLES = (25, 120)
"""Examples per test of the first look, which kills most mutants, and of the second."""
SECONDS = 240
"""A mutant that runs longer is killed: it does not end."""

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change of a module of stages.

    Attributes:
        module: the module's name, such as `alignment`.
        line: the line that is changed.
        old, new: the expression before and after.
        source: the whole module with the change.
    """

    module: str
    line: int
    old: str
    new: str
    source: str

    def __str__(self) -> str:
        return f"reference/stages/{self.module}.py:{self.line}: {self.old}  ->  {self.new}"


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield changed copies of a node, without its children's changes."""
    other: Any = copy.deepcopy(node)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        other.ops[0] = COMPARISONS[type(node.ops[0])]()
        yield other
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        other.op = OPERATORS[type(node.op)]()
        yield other
    elif isinstance(node, ast.BoolOp):
        other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and type(node.value) is float:
        yield ast.Constant(node.value * 2 if node.value else 1.0)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.IfExp):
        yield copy.deepcopy(node.body)
        yield copy.deepcopy(node.orelse)


def mutants(module: str) -> list[Mutant]:
    """Return all mutants of a module of stages. Docstrings, annotations and messages of errors are left alone."""
    text = (STAGES / f"{module}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    spared = {id(child) for node in ast.walk(tree) for part in _spared(node) for child in ast.walk(part)}
    inside = [node for top in tree.body if isinstance(top, ast.FunctionDef) for node in ast.walk(top)]
    found = []
    for node in inside:
        if id(node) in spared:
            continue
        for other in changes(node):
            old, new = ast.unparse(node), ast.unparse(other)
            if old == new:
                continue
            whole = ast.unparse(_Replace(node, other).visit(tree))
            found.append(Mutant(module, getattr(node, "lineno", 0), old, new, whole))
    return found


class _Replace(ast.NodeTransformer):
    """Replace one node while a tree is copied."""

    def __init__(self, node: ast.AST, other: ast.AST) -> None:
        self.node, self.other = node, other

    def visit(self, node: ast.AST) -> Any:
        if node is self.node:
            return ast.copy_location(copy.deepcopy(self.other), node)
        changed = copy.copy(node)
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                setattr(changed, name, [self.visit(each) if isinstance(each, ast.AST) else each for each in value])
            elif isinstance(value, ast.AST):
                setattr(changed, name, self.visit(value))
        return changed


def _spared(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Raise) and node.exc is not None:
        yield node.exc
    if isinstance(node, ast.FunctionDef):
        yield from (each.annotation for each in ast.walk(node.args) if isinstance(each, ast.arg) and each.annotation)
        yield from [node.returns] if node.returns else []
        yield from node.decorator_list
    if isinstance(node, ast.AnnAssign):
        yield node.annotation
    if isinstance(node, ast.FormattedValue | ast.JoinedStr):
        yield node


def implementation(mutant: Mutant) -> SimpleNamespace:
    """Return the reference with the functions of the mutated module."""
    reference = importlib.import_module("touchstone.stages")
    original = importlib.import_module(f"touchstone.stages.{mutant.module}")
    changed = types.ModuleType(original.__name__)
    changed.__dict__["__file__"] = original.__file__
    sys.modules[original.__name__] = changed  # dataclasses look their module up
    exec(compile(mutant.source, str(original.__file__), "exec"), changed.__dict__)
    found = SimpleNamespace()
    for name in NAMES:
        function = getattr(reference, name)
        setattr(found, name, getattr(changed, name) if hasattr(changed, name) else function)
    return found


def judged(mutant: Mutant) -> str:
    """Return the check that kills a mutant, or an empty string."""
    try:
        target = implementation(mutant)
    except Exception as error:
        return f"import: {type(error).__name__}"
    reference = importlib.import_module("touchstone.stages")
    own = {name for name in NAMES if getattr(target, name) is not getattr(reference, name)}
    checks = [check for check in all_checks() if own & {*check.needs}]
    for examples in EXAMPLES:
        for check in checks:
            try:
                run_check(check, target, seed=1, max_examples=examples)
            except CheckFailed:
                return check.id
            except NotOffered:
                continue
            except Exception as error:
                return f"{check.id}: {type(error).__name__}"
    return ""


def killers(chosen: Sequence[Mutant], *, jobs: int) -> Iterator[tuple[Mutant, str]]:
    """Judge mutants, each in a process of its own, which may hang or die. Yield each with the check that kills it."""
    context = multiprocessing.get_context("fork")
    waiting = list(reversed(chosen))
    running: dict[Connection, tuple[Mutant, Any, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_judge, args=(mutant, sender))
            process.start()
            sender.close()
            running[receiver] = mutant, process, time.monotonic() + SECONDS
        ready = wait(list(running), timeout=1)
        for receiver, (mutant, process, until) in list(running.items()):
            if receiver in ready or time.monotonic() > until:
                del running[receiver]
                yield mutant, _answer(receiver) if receiver in ready else "does not end"
                process.kill()
                process.join()


def _judge(mutant: Mutant, sender: Connection) -> None:
    sender.send(judged(mutant))


def _answer(receiver: Connection) -> str:
    try:
        return str(receiver.recv())
    except EOFError:
        return "died"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.mutation", description=__doc__.splitlines()[0])
    parser.add_argument("--module", action="append", help="a module of reference/stages (repeatable; default: all)")
    parser.add_argument("--sample", type=int, metavar="N", help="only N mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="processes at a time (default: 1)")
    options = parser.parse_args()
    with_stages = {
        getattr(importlib.import_module("touchstone.stages"), name).__module__.rpartition(".")[2] for name in NAMES
    }
    every = [mutant for module in options.module or sorted(with_stages) for mutant in mutants(module)]
    chosen = every
    if options.sample and options.sample < len(every):
        chosen = random.Random(options.seed).sample(every, options.sample)
    all_checks()  # imported once, before the processes are forked
    counts: Counter[str] = Counter()
    for number, (mutant, killer) in enumerate(killers(chosen, jobs=options.jobs), start=1):
        counts["killed" if killer else "survived"] += 1
        print(f"{number:4} of {len(chosen)}  {killer or 'SURVIVED':<10}  {mutant}", flush=True)
    share = counts["killed"] / max(len(chosen), 1)
    print(f"{counts['killed']} of {len(chosen)} mutants killed ({share:.1%}), of {len(every)} in all")


if __name__ == "__main__":
    main()
