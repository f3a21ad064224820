"""Read the loops around a line of the user's code: how often they run, and whether they may end early."""

from __future__ import annotations

import ast
import linecache
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
}
_CALLS: dict[str, Callable[..., Any]] = {"len": len, "int": int, "max": max, "min": min, "ceil": math.ceil}
_WRAPPERS = frozenset(("tqdm", "trange", "track", "enumerate", "list", "iter", "islice", "auto_tqdm"))


class Unknown(Exception):
    """An expression is not made of names, attributes, numbers and simple arithmetic."""


@dataclass(frozen=True)
class Loop:
    """A loop around a line.

    Args:
        counted: it runs over a `range`.
        length: how often it runs, or None if unknown.
        breaks: it contains `break` or `return`, so that it may end early.
        where: `file:line` of the loop.
    """

    counted: bool
    length: int | None
    breaks: bool
    where: str


def loops_around(frames: list[FrameType]) -> list[Loop]:
    """Return the loops around the current lines of some frames, outermost first.

    Args:
        frames: frames of the user's code, innermost first.
    """
    found: list[Loop] = []
    for frame in reversed(frames):
        found += _in_frame(frame)
    return found


def _in_frame(frame: FrameType) -> list[Loop]:
    path, line = frame.f_code.co_filename, frame.f_lineno
    try:
        tree: ast.AST = ast.parse("".join(linecache.getlines(path, frame.f_globals)))
    except SyntaxError:
        return []
    found: list[Loop] = []
    node: ast.AST | None = tree
    while node is not None:
        inner = None
        for child in _statements(node):
            if child.lineno <= line <= (child.end_lineno or child.lineno):
                inner = child
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found = []  # loops outside the function are those of another frame
        if isinstance(inner, (ast.For, ast.While)) and any(
            each.lineno <= line <= (each.end_lineno or each.lineno) for each in inner.body
        ):
            found.append(_loop(inner, frame, path))
        node = inner
    return found


def _statements(node: ast.AST) -> list[ast.stmt]:
    found: list[ast.stmt] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            found.append(child)
        elif isinstance(child, (ast.ExceptHandler, ast.match_case)):
            found += _statements(child)
    return found


def _loop(node: ast.For | ast.While, frame: FrameType, path: str) -> Loop:
    where = f"{path}:{node.lineno}"
    breaks = _leaves(node.body)
    if isinstance(node, ast.While):
        return Loop(counted=False, length=None, breaks=True, where=where)
    iterated: ast.expr = node.iter
    while isinstance(iterated, ast.Call) and _name(iterated.func) in _WRAPPERS - {"trange"} and iterated.args:
        iterated = iterated.args[0]
    if isinstance(iterated, ast.Call) and _name(iterated.func) in ("range", "trange"):
        try:
            length: int | None = len(range(*(int(_value(each, frame)) for each in iterated.args)))
        except (Unknown, TypeError, ValueError, OverflowError):
            length = None
        return Loop(counted=True, length=length, breaks=breaks, where=where)
    try:
        value = _value(iterated, frame)
    except Unknown:
        value = None
    if isinstance(value, range):
        return Loop(counted=True, length=len(value), breaks=breaks, where=where)
    return Loop(counted=False, length=None, breaks=breaks, where=where)


def _leaves(body: list[ast.stmt]) -> bool:
    """Tell whether statements contain `break` or `return` that leaves their loop."""
    for statement in body:
        if isinstance(statement, (ast.Break, ast.Return)):
            return True
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        inner = _statements(statement)
        if isinstance(statement, (ast.For, ast.While)):
            inner = [each for each in inner if not isinstance(each, ast.Break)]
            if any(isinstance(each, ast.Return) for part in inner for each in ast.walk(part)):
                return True
            continue
        if _leaves(inner):
            return True
    return False


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _value(node: ast.expr, frame: FrameType) -> Any:
    """Return the value of an expression of names, attributes, constants and simple arithmetic; nothing else is run."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        for names in (frame.f_locals, frame.f_globals):
            if node.id in names:
                return names[node.id]
        raise Unknown(node.id)
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, frame)
        try:
            return vars(owner)[node.attr]
        except (TypeError, KeyError):
            value = getattr(type(owner), node.attr, None)
            if isinstance(value, (int, float)):
                return value
            raise Unknown(node.attr) from None
    if isinstance(node, ast.Subscript):
        owner, key = _value(node.value, frame), _value(node.slice, frame)
        if isinstance(owner, (dict, list, tuple)):
            try:
                return owner[key]
            except (KeyError, IndexError, TypeError):
                raise Unknown(str(key)) from None
        raise Unknown("subscript")
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left, frame), _value(node.right, frame))
    if isinstance(node, ast.Call) and _name(node.func) in _CALLS and not node.keywords:
        try:
            return _CALLS[_name(node.func)](*(_value(each, frame) for each in node.args))
        except (TypeError, ValueError) as error:
            raise Unknown(_name(node.func)) from error
    raise Unknown(type(node).__name__)
