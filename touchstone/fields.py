"""Field types, the base model, and the error messages that specs, expectations and records share.

Every file that the suite reads is validated by pydantic. `validation_problems` turns a failed validation into one line
for each problem: file, key path, value, remedy.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)


class FrozenModel(BaseModel):
    """A pydantic model that is immutable and rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""How JSON spells the floats it has no literals for. A run that diverged has such losses and scores."""


def _from_json(value: Any) -> Any:
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def _to_json(value: float) -> float | str:
    if value != value:
        return "NaN"
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(value, value)


Number = Annotated[
    float,
    BeforeValidator(_from_json),
    PlainSerializer(_to_json, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": list(NON_FINITE)}]}),
]
"""Any float, such as a loss or a score. `NaN`, `Infinity` and `-Infinity` are strings in JSON."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
"""A finite float."""
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite, non-negative float: seconds, joules, bytes per second."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A non-negative 64-bit integer: steps, tokens, bytes."""
Positive = Annotated[int, Field(ge=1, lt=2**63)]
"""A positive 64-bit integer."""
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=2000)]
"""One line of text without control characters, which could rewrite the terminal that shows it."""
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+_-]*$", max_length=100)]
"""A name that may be part of a file name on any system."""
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
"""A SHA-256 hash in hexadecimal."""


def printable(text: str) -> str:
    """Turn any text into a `Line`: control characters and line ends become spaces, and the end is cut off."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).strip()[:2000]


SHOWN_CHARACTERS = 80
"""Characters of a wrong value that an error message shows: enough to recognise it, too few to flood a terminal."""


def validation_problems(
    error: ValidationError, *, where: str, known: Iterable[str] = (), within: Callable[[str], str] | None = None
) -> list[str]:
    """Describe a failed validation, one line for each problem: file, key path, value, remedy.

    Args:
        where: the file.
        known: the valid top-level keys, for "did you mean".
        within: maps the first key of a problem to the key path of the table that holds it, if only a part of the file
            was validated.
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


def key_names(model: type[BaseModel]) -> list[str]:
    """Return the keys of a model as they are spelled in a file."""
    return [field.alias or name for name, field in model.model_fields.items()]


def unknown_key(key: str, *, where: str, known: Iterable[str] = ()) -> str:
    """Return the error message for an unknown key."""
    names = list(known)
    close = get_close_matches(key.rsplit(".", 1)[-1], names, n=1)
    if close:
        return f"{where}: {key} is not a known key: did you mean {close[0]}?"
    return f"{where}: {key} is not a known key: " + (f"known keys are {', '.join(names)}" if names else "remove it")


def key_path(location: Sequence[int | str]) -> str:
    """Return a key path as it would be written in the file: `recipe.betas[1]`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path or "(the whole file)"


def shown(value: object) -> str:
    """Return the `repr` of a value, cut to `SHOWN_CHARACTERS`."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def optional_import(module: str) -> Any:
    """Import a module of a package that only the extra `suite` installs.

    Raises:
        ModuleNotFoundError: the package is not installed; the message gives the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{module.partition(".")[0]} is not installed: pip install "touchstone[suite]"', name=module
        ) from error
