"""Check that a stage is pure.

A pure stage returns the same result for the same arguments, does not change them or the global random generators, and
returns a result that shares no memory with them or within itself.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from touchstone.properties.failure import Mismatch, expect
from touchstone.properties.subject import ImplementationRaised, Subject
from touchstone.properties.values import fresh, plain, spell_out
from touchstone.stages.ragged import Ragged


def expect_pure(implementation: Subject, stage: str, *args: Any, **kwargs: Any) -> None:
    """Call a stage twice on the same objects and require it to be pure.

    A ragged result may share its offsets with an argument: they are where rows begin, and not cells.
    """
    __tracebackhide__ = True
    if "form" not in implementation.muted:
        with about_form():
            _expect_pure(implementation, stage, args, kwargs)


@contextlib.contextmanager
def about_form() -> Iterator[None]:
    """Turn a mismatch into one of the form of a call: its result is not wrong."""
    __tracebackhide__ = True
    try:
        yield
    except Mismatch as mismatch:
        mismatch.kind = "form"
        raise


def _expect_pure(implementation: Subject, stage: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    __tracebackhide__ = True
    handed = fresh(args), fresh(kwargs)
    before = global_generators()
    first = _call(implementation, stage, *handed)
    if global_generators() != before:
        raise Mismatch(expected="the global random generators unchanged", came="another state")
    given, left = plain([args, kwargs]), plain(list(handed))
    expect(given, left, where="" if given == left else f"the arguments changed: {spell_out(left)}")
    first_plain = plain(first)
    expect_nothing_shared(first, arguments=handed)
    second = _call(implementation, stage, *handed)
    expect(first_plain, plain(second), where="" if first_plain == plain(second) else "the second call differs")


def _call(implementation: Subject, stage: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return implementation.record(stage, args, kwargs, hand_over=lambda value: value)


def expect_same_for_tuples_and_arrays(implementation: Subject, stage: str, *args: Any, **kwargs: Any) -> None:
    """Require the same result for lists, tuples and NumPy arrays of the same numbers.

    Floats may differ by rounding: an implementation may add up an array in another order than a list.
    """
    __tracebackhide__ = True
    if "form" in implementation.muted:
        return
    expected = getattr(implementation, stage)(*args, **kwargs)
    for form, called in ((as_tuples, "tuples"), (as_arrays, "NumPy arrays")):
        with about_form():
            try:
                came = getattr(implementation, stage)(
                    *(form(value) for value in args), **{name: form(value) for name, value in kwargs.items()}
                )
            except ImplementationRaised as raised:
                error = raised.error
                expect(expected, f"{type(error).__name__}: {error}", where=f"with {called} in place of lists")
            if not equal_up_to_rounding(expected, came):
                expect(expected, came, where=f"with {called} in place of lists")


ROUNDING = 1e-5
"""What float32 keeps of sums over thousands of values."""


def equal_up_to_rounding(one: Any, other: Any) -> bool:
    """Return whether two plain values are equal, floats within `ROUNDING`."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(equal_up_to_rounding(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(equal_up_to_rounding, one, other))
    return bool(one == other)


def as_tuples(value: Any) -> Any:
    """Convert all lists to tuples."""
    if isinstance(value, list):
        return tuple(as_tuples(item) for item in value)
    return {key: as_tuples(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def as_arrays(value: Any) -> Any:
    """Convert lists of numbers or booleans to arrays, and lists of lists to lists of arrays."""
    if isinstance(value, list):
        for kind in (bool, int, float):
            if value and all(type(item) is kind for item in value):
                return np.array(value)
        return [as_arrays(item) if isinstance(item, list | Mapping) else item for item in value]
    return {key: as_arrays(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def global_generators() -> list[Any]:
    """Return the states of the global generators of Python and NumPy."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return [random.getstate(), name, keys.tobytes(), *rest]  # type: ignore[union-attr]


def cells(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield everything in a value that can be changed in place (lists, dicts, arrays, tensors), with its path."""
    if isinstance(value, Ragged) or (hasattr(value, "offsets") and hasattr(value, "values")):
        yield from cells(value.values, f"{path}.values")
    elif isinstance(value, Mapping):
        yield path, value
        for key, item in value.items():
            yield from cells(item, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        if isinstance(value, list):
            yield path, value
        if not value or type(value[0]) is not int:  # integers cannot be changed in place
            for index, item in enumerate(value):
                yield from cells(item, f"{path}[{index}]")
    elif hasattr(value, "detach"):
        yield path, value.detach().cpu().numpy()
    elif isinstance(value, np.ndarray) and value.ndim:
        yield path, value


def expect_nothing_shared(result: Any, *, arguments: Any) -> None:
    """Require that changing a cell of the result changes no argument and no other cell."""
    __tracebackhide__ = True
    ours, theirs = list(cells(result, "result")), list(cells(arguments, "arguments"))
    seen: dict[int, str] = {id(part): path for path, part in theirs}
    for path, part in ours:
        if id(part) in seen:
            raise Mismatch(expected=f"{path} to be a new object", came=f"the same object as {seen[id(part)]}")
        seen[id(part)] = path
    arrays = [(path, part) for path, part in [*theirs, *ours] if isinstance(part, np.ndarray) and part.size]
    for index, (path, part) in enumerate(arrays):
        if not path.startswith("result"):
            continue
        if any(stride == 0 and size > 1 for stride, size in zip(part.strides, part.shape, strict=True)):
            raise Mismatch(expected=f"{path} to have a cell for each value", came="one cell repeated")
        for other_path, other in arrays[:index]:
            if np.shares_memory(part, other):
                raise Mismatch(expected=f"{path} to have separate memory", came=f"memory shared with {other_path}")
