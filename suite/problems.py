"""What is wrong with a file or a value, one line a problem, in the words of whoever has to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

from pydantic import ValidationError

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
