"""Files of known failures: checks that an implementation fails today, why, and where that is reported upstream.

    [[known]]
    check = "W10"
    reason = "an answer in the last token of a window gets a span that ends before it starts"
    link = "https://github.com/huggingface/transformers/issues/1234"      # optional

The file of `package/adapter.py` is `package/adapter.toml`, or any other that `--known` names.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class KnownError(Exception):
    """A file of known failures cannot be used; the message names the file, the entry and what is wrong."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    check: str
    reason: str
    link: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    known: list[_Entry]


def read_known(path: Path) -> dict[str, str]:
    """Return the reason, with its link, of each check in a file of known failures.

    Raises:
        KnownError: the file cannot be read, has another form, or names a check twice.
    """
    try:
        entries = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).known
    except OSError as error:
        raise KnownError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KnownError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise KnownError(f"{path}: {place}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
    found: dict[str, str] = {}
    for entry in entries:
        if entry.check in found:
            raise KnownError(f"{path}: {entry.check} is listed twice")
        found[entry.check] = f"{entry.reason} ({entry.link})" if entry.link else entry.reason
    return found


def known_failures(module: str, given: Path | None) -> dict[str, str]:
    """Return the known failures in the file that is given, or in the one beside the module of an implementation.

    Raises:
        KnownError: as `read_known`.
    """
    if given is not None:
        return read_known(given)
    source = getattr(sys.modules.get(module), "__file__", None)
    beside = Path(source).with_suffix(".toml") if source else None
    return read_known(beside) if beside is not None and beside.is_file() else {}
