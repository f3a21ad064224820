"""Copy the arguments of an implementation, make its results plain, and write both as Python source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from touchstone.stages.ragged import Ragged


class Spelled(list[Any]):
    """A long list that is shown as an expression, such as `[i // 3 for i in range(9000)]`."""

    def __init__(self, source: str) -> None:
        super().__init__(eval(source, {"__builtins__": {"range": range, "list": list}}))  # our own constant expressions
        self.source = source


class OneShot(list[Any]):
    """A list that the implementation receives as an iterator, to be read once."""


def fresh(value: Any) -> Any:
    """Return a copy that shares nothing with `value`. `Spelled` becomes a list and `OneShot` an iterator."""
    if isinstance(value, OneShot):
        return iter([fresh(item) for item in value])
    if isinstance(value, list):
        return [fresh(item) if isinstance(item, list | tuple | Mapping | np.ndarray) else item for item in value]
    if isinstance(value, tuple):
        return tuple(fresh(item) for item in value)
    if isinstance(value, Mapping):
        return {key: fresh(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Ragged):
        return Ragged(value.values.copy(), value.offsets.copy())
    return value


def plain(value: Any) -> Any:
    """Convert arrays, tensors, tuples and ragged arrays to lists, dicts and Python numbers."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) if not isinstance(item, int) else item for item in value]
    if hasattr(value, "offsets") and hasattr(value, "values"):
        values, offsets = plain(value.values), plain(value.offsets)
        return [values[a:b] for a, b in pairwise(offsets)]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def spell_out(value: Any) -> str:
    """Return the Python source of a value."""
    if isinstance(value, Spelled):
        return value.source
    if isinstance(value, OneShot):
        return f"iter({spell_out(list(value))})"
    if isinstance(value, Ragged):
        return f"Ragged.from_lists({spell_out(value.to_lists())})"
    if isinstance(value, np.ndarray):
        dtype = ", dtype=object" if value.dtype == object else "" if value.size else ", dtype=np.int64"
        return f"np.array({spell_out(value.tolist())}{dtype})"
    if isinstance(value, np.generic):
        return f"np.{type(value).__name__}({value.item()!r})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {spell_out(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return f"({', '.join(map(spell_out, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(spell_out, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)
