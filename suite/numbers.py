"""Floats in JSON. JSON has no NaN and no infinity, and a run that diverged has both: they are written as strings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

SPELLINGS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def _read(value: Any) -> Any:
    return SPELLINGS.get(value, value) if isinstance(value, str) else value


def _write(value: float) -> float | str:
    if value != value:
        return "NaN"
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(value, value)


Number = Annotated[
    float,
    BeforeValidator(_read),
    PlainSerializer(_write, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": list(SPELLINGS)}]}),
]
"""Any float: a loss or a score. `NaN`, `Infinity` and `-Infinity` are strings in JSON."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
"""A float that cannot be anything but finite."""
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Seconds, joules: finite and not negative."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
"""Of steps, tokens, bytes."""
