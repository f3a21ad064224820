"""The report of a failed check: the input, the expected and the actual result, and a line that reproduces it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from touchstone.properties.values import plain, spell_out

WIDTH = 400  # characters of one value in the report; the line to paste is never cut


Kind = Literal["result", "refusal", "form"]
"""What a failure is about: the output is wrong, invalid input is accepted, or a call has side effects or depends on
the type of its arguments."""
KINDS: tuple[Kind, ...] = get_args(Kind)


class Mismatch(AssertionError):
    """A wrong result. The `expect` functions raise it; the check turns it into a `CheckFailed` with the calls."""

    def __init__(self, *, expected: str, came: str, where: str = "", kind: Kind = "result") -> None:
        super().__init__(f"expected {expected}, got {came}")
        self.expected, self.came, self.where, self.kind = expected, came, where, kind


class CheckFailed(AssertionError):
    """A check failed.

    `str()` is the whole report, `headline` the check and its rule in one line, `paste` a line of Python that repeats
    the calls. `cause` identifies an exception of the implementation, which several checks may meet; it is None if the
    result is wrong.
    """

    def __init__(
        self, headline: str, report: str, *, kind: Kind = "result", cause: Hashable | None = None, paste: str = ""
    ) -> None:
        super().__init__(report)
        self.headline, self.kind, self.cause, self.paste = headline, kind, cause, paste


@dataclass
class Call:
    """One call of a stage, with copies of its arguments."""

    stage: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any = None
    error: Exception | None = None

    @property
    def outcome(self) -> str:
        """The result or the exception as text."""
        return f"{type(self.error).__name__}: {self.error}" if self.error else spell_out(plain(self.result))

    def code(self, prefix: str = "") -> str:
        """Return the call as Python source."""
        words = [spell_out(value) for value in self.args]
        words += [f"{name}={spell_out(value)}" for name, value in self.kwargs.items()]
        return f"{prefix}{self.stage}({', '.join(words)})"


@dataclass
class Trace:
    """The calls of one example, oldest first, and remarks on the input (words, tokenizer)."""

    calls: list[Call] = field(default_factory=list)
    remarks: dict[str, str] = field(default_factory=dict)


def line_to_paste(calls: Sequence[Call], *, module: str, attribute: str) -> str:
    """Return one line of Python that repeats the calls.

    Args:
        module: where to import from, empty if the object cannot be imported by name, or a statement that imports it.
        attribute: the name of the object, empty if it is the module.
    """
    source = "; ".join(call.code(f"{attribute}." if attribute else "") for call in calls)
    imports = ["import numpy as np"] if "np." in source else []
    imports += ["from touchstone.stages.ragged import Ragged"] if "Ragged." in source else []
    if " " in module:
        imports.append(module)
    elif module:
        names = [attribute] if attribute else sorted({call.stage for call in calls})
        imports.append(f"from {module} import {', '.join(names)}")
    return "; ".join([*imports, source])


def short(text: str) -> str:
    """Cut a text to `WIDTH` characters."""
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 20]} ... ({len(text)} characters)"


def calls_shown(trace: Trace) -> list[Call]:
    """Return the calls of an example that a report shows: all of a few, the last of many."""
    return trace.calls if len(trace.calls) <= 4 else trace.calls[-1:]


def _show(value: Any) -> str:
    return value if isinstance(value, str) else spell_out(value)


def compose(*, title: str, mismatch: Mismatch, trace: Trace, module: str, attribute: str) -> str:
    """Return the report of a failed check."""
    lines = [title, ""]
    lines += [f"  {name:<10} {short(text)}" for name, text in trace.remarks.items()]
    shown = calls_shown(trace)
    for number, call in enumerate(shown, start=1):
        label = "called" if len(shown) == 1 else f"call {number}"
        lines.append(f"  {label:<10} {call.stage}")
        lines += [f"  {'':<10}   {short(spell_out(value))}" for value in call.args]
        lines += [f"  {'':<10}   {name} = {short(spell_out(value))}" for name, value in call.kwargs.items()]
        if len(shown) > 1:
            lines.append(f"  {'':<10}   -> {short(call.outcome)}")
    if len(shown) < len(trace.calls):
        varying = ", ".join(_varying(trace.calls))
        lines.append(f"  {'':<10}   (the last of {len(trace.calls)} calls; they differ in {varying})")
    lines += ["", f"  {'expected':<10} {short(mismatch.expected)}", f"  {'got':<10} {short(mismatch.came)}"]
    if mismatch.where:
        lines.append(f"  {'':<10} {short(mismatch.where)}")
    lines += ["", "  paste this to reproduce it:", f"  {line_to_paste(shown, module=module, attribute=attribute)}"]
    return "\n".join(lines)


def _varying(calls: Sequence[Call]) -> Iterator[str]:
    for name in calls[0].kwargs:
        spelled = {spell_out(call.kwargs.get(name)) for call in calls}
        if len(spelled) > 1:
            yield name
    if len({spell_out(call.args) for call in calls}) > 1:
        yield "the first argument"


def expect(expected: Any, came: Any, *, where: str = "") -> None:
    """Require equality. The report shows where two sequences differ first."""
    __tracebackhide__ = True
    if expected != came:
        raise Mismatch(expected=_show(expected), came=_show(came), where=where or _first_difference(expected, came))


def expect_that(holds: bool, *, expected: str, came: Any, where: str = "") -> None:
    """Require a condition. `expected` describes it in words."""
    __tracebackhide__ = True
    if not holds:
        raise Mismatch(expected=expected, came=_show(came), where=where)


def expect_close(expected: float, came: float, *, relative: float, absolute: float = 0.0, where: str = "") -> None:
    """Require two numbers to be equal within a relative (near 0: absolute) tolerance, or an absolute one."""
    __tracebackhide__ = True
    if not math.isclose(expected, came, rel_tol=relative, abs_tol=max(relative, absolute)):
        within = f"within {absolute:g}" if absolute else f"within a relative {relative:g}"
        raise Mismatch(expected=f"{expected!r} ({within})", came=repr(came), where=where)


def _first_difference(expected: Any, came: Any, path: str = "") -> str:
    """Return the first place where two nested values differ, such as `at ['labels'][0][3]: expected 1, got 2`."""
    if isinstance(expected, Mapping) and isinstance(came, Mapping):
        if expected.keys() != came.keys():
            return f"keys{' at ' + path if path else ''}: expected {sorted(expected)}, got {sorted(came)}"
        pairs = [(f"{path}[{key!r}]", expected[key], came[key]) for key in expected]
    elif isinstance(expected, list | tuple) and isinstance(came, list | tuple):
        if len(expected) != len(came):
            return f"length{' at ' + path if path else ''}: expected {len(expected)}, got {len(came)}"
        pairs = [(f"{path}[{index}]", a, b) for index, (a, b) in enumerate(zip(expected, came, strict=True))]
    else:
        return f"at {path}: expected {spell_out(expected)}, got {spell_out(came)}" if path else ""
    return next((_first_difference(a, b, place) for place, a, b in pairs if a != b), "")
