"""Check the shape of what a function of the contract returns. Whether the values are right is up to the checks."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from touchstone.contract import RETURNS, describe
from touchstone.properties.failure import Mismatch
from touchstone.properties.values import spell_out


def shaped(name: str, value: Any) -> Any:
    """Return the plain result of the function `name`, with pairs as tuples.

    Raises:
        Mismatch: the result has another shape than the contract says; the message names the first wrong place.
    """
    __tracebackhide__ = True
    try:
        return _adapter(name).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        path = "".join(f"[{step!r}]" for step in first["loc"])
        problem = first["msg"][:1].lower() + first["msg"][1:]
        raise Mismatch(
            expected=describe(RETURNS[name]),
            came=f"{type(value).__name__}: {spell_out(value)}",
            where=f"at {path}: {spell_out(first['input'])}: {problem}" if path else "",
        ) from None


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    shape = RETURNS[name]
    try:
        return TypeAdapter(shape, config=ConfigDict(strict=True))
    except PydanticUserError:  # a TypedDict, which brings its own configuration
        return TypeAdapter(shape)
