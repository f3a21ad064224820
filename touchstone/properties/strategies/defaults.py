"""Calls that leave out arguments at their defaults, as most callers do."""

from __future__ import annotations

import functools
from typing import Any

from touchstone import contract


@functools.cache
def shared_defaults() -> dict[str, Any]:
    """Return the default of every optional argument in the contract. One name has one default in all functions.

    Raises:
        ValueError: two functions give the same argument different defaults.
    """
    found: dict[str, Any] = {}
    for name in contract.NAMES:
        for argument, default in contract.defaults(name).items():
            if found.setdefault(argument, default) != default:
                raise ValueError(f"{argument} is {default!r} by default in {name} and {found[argument]!r} elsewhere")
    return found


def without_defaults(arguments: dict[str, Any], *, brief: bool) -> dict[str, Any]:
    """Return the arguments of a call, without those at their default if the call is `brief`."""
    if not brief:
        return arguments
    defaults = shared_defaults()
    return {name: value for name, value in arguments.items() if name not in defaults or value != defaults[name]}
