"""Engines: ways to train a pipeline. All reach the same metrics; they differ in speed.

An engine is known by a name:

* `trainer` and `loop` are built in;
* an installed package adds names with an entry point in the group `touchstone.engines`;
* any other engine is called by its place, `package.module:attribute` (see docs/your-own-engine.md).

Listing and checking names imports no engine, and no torch: both take seconds.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from touchstone.engines.engine import Engine

BUILT_IN = {"trainer": "touchstone.engines.trainer:train", "loop": "touchstone.engines.loop:train"}
GROUP = "touchstone.engines"
"""The group of entry points that adds names."""
PAGE = "docs/your-own-engine.md"
SLUG_LENGTH = 100
"""Characters of a name in a record, at most."""


class EngineError(Exception):
    """An engine or a run that is not possible. The message gives the value, the reason and the remedy."""


def engine_names() -> tuple[str, ...]:
    """Return the names of all built-in and installed engines, the built-in ones first."""
    return tuple(_places())


def check_engine(name: str) -> None:
    """Check the name of an engine without importing the engine.

    Raises:
        EngineError: the name is unknown, is not of the form `package.module:attribute`, or its package does not exist.
    """
    place = _places().get(name, name)
    module, colon, attribute = place.partition(":")
    if not colon:
        close = get_close_matches(name, engine_names(), n=1)
        raise EngineError(
            f"there is no engine {name!r}; possible: {', '.join(engine_names())}, or package.module:attribute for your "
            f"own ({PAGE})" + (f"; did you mean {close[0]}?" if close else "")
        )
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise EngineError(
            f"{place!r} does not name a Python object: write package.module:attribute, with dots and without .py, such "
            "as mypackage.engine:train"
        )
    _search_working_directory()
    package = module.partition(".")[0]
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        raise EngineError(
            f"there is no module {package!r} for engine {name!r}: install it, or run from the folder that holds it "
            f"({os.getcwd()} is searched)"
        )


def load_engine(name: str) -> Engine:
    """Import an engine.

    Args:
        name: a built-in or installed name, or `package.module:attribute`. The attribute is an `Engine`, or a function
            that trains (`touchstone.engines.engine.Train`).

    Raises:
        EngineError: there is no such engine, or it cannot be imported.
    """
    from touchstone.engines.engine import Engine

    check_engine(name)
    module, _, attribute = _places().get(name, name).partition(":")
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # a module can raise anything
        raise EngineError(
            f"engine {name!r}: importing {module} raised {type(error).__name__}: {error}; "
            f"try python -c 'import {module}'"
        ) from error
    if not hasattr(imported, attribute):
        close = get_close_matches(attribute, dir(imported), n=1)
        raise EngineError(
            f"engine {name!r}: {module} has no attribute {attribute!r}"
            + (f"; did you mean {close[0]}?" if close else "; name the function that trains")
        )
    found = getattr(imported, attribute)
    if isinstance(found, Engine):
        return found
    if not callable(found):
        raise EngineError(
            f"engine {name!r} is a {type(found).__name__}, which cannot train: name a function, or an Engine ({PAGE})"
        )
    return Engine(found)


def engine_slug(name: str) -> str:
    """Return the form of an engine's name that is used in records and in the names of tests and files.

    >>> engine_slug("mypackage.engine:Train")
    'mypackage-engine-train'
    """
    return re.sub(r"[^a-z0-9_]+", "-", name.lower())[-SLUG_LENGTH:].strip("-_")


@cache
def _places() -> dict[str, str]:
    """The place of each named engine. A package cannot take a built-in name."""
    installed = sorted((point.name, point.value) for point in entry_points(group=GROUP))
    return BUILT_IN | {name: place for name, place in installed if name not in BUILT_IN}


def _search_working_directory() -> None:
    """Let modules be imported from the working directory, which `pytest` leaves out, unlike `python -m pytest`."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
