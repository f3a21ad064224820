"""What is wrong with a file or a value, one line a problem, in the words of whoever has to mend it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints, ValidationError, WithJsonSchema

# Floats in JSON. JSON has no NaN and no infinity, and a run that diverged has both: they are written as strings.


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


# Text that comes from elsewhere and will be shown: one line, no control characters.


Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=2000)]
"""No control characters, which could rewrite the terminal it is shown on."""


def printable(text: str) -> str:
    """As a `Line`: control characters and line ends become spaces, and what is too long is cut."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).strip()[:2000]


LONGEST_VALUE = 80
"""Characters of an offending value that a message shows: enough to recognise it, too few to flood a terminal."""


def of_validation(
    error: ValidationError, *, where: str, known: Iterable[str] = (), within: Callable[[str], str] | None = None
) -> list[str]:
    """One line a problem: file, key path, value, remedy.

    Args:
        where: the file.
        known: the keys that exist at the top level of what was validated, for "did you mean".
        within: from the first key to the key path of the table that has it, if what was validated is not the whole
            file.
    """
    lines = []
    for problem in error.errors(include_url=False):
        location = problem["loc"]
        prefix = [within(str(location[0]) if location else "")] if within else []
        key = key_path([*prefix, *location])
        match problem["type"]:
            case "missing":
                lines.append(f"{where}: {key} is missing: add it")
            case "extra_forbidden":
                lines.append(unknown_key(key, where=where, known=known if len(problem["loc"]) == 1 else ()))
            case _:
                message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
                lines.append(f"{where}: {key} = {shown(problem['input'])}: {message}")
    return lines


def unknown_key(key: str, *, where: str, known: Iterable[str] = ()) -> str:
    names = list(known)
    close = get_close_matches(key.rsplit(".", 1)[-1], names, n=1)
    if close:
        return f"{where}: {key} is not a known key: did you mean {close[0]}?"
    return f"{where}: {key} is not a known key: " + (f"known are {', '.join(names)}" if names else "remove it")


def key_path(location: Sequence[int | str]) -> str:
    """`recipe.betas[1]`, as one would look for it in the file."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path or "(the whole file)"


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
