"""The frame of a spec's file: where it is found, and which keys, profiles and variants it may have.

What stands in a profile's parts (data, checkpoint, recipe, options) is looked into by `suite.specs.spec`.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from reference.pipelines import PIPELINES
from suite.problems import key_path, shown, unknown_key

SPECS = Path(__file__).parent
NAME = r"^[a-z0-9]+([_-][a-z0-9]+)*$"
"""Of a spec, profile or variant: it becomes part of file names."""
PARTS = ("data", "checkpoint", "recipe", "options")
VARIANT_KEYS = ("profiles", "division", *PARTS)
DIVISIONS = ("closed", "open")
"""Of a variant. MLPerf's words: the closed division trains the recipe as it is, the open one another to the same
quality."""
PROFILE_KEYS = ("assert", "timeout_seconds", "minutes", "eval_batch_size", *PARTS)
Table = dict[str, Any]


class SpecError(Exception):
    """A spec cannot be used: one line a problem, each with file, key, value and remedy."""


def available_specs() -> list[str]:
    """The names of the specs that come with the suite."""
    return sorted(path.stem for path in SPECS.glob("*.toml"))


class SpecFile(BaseModel):
    """A spec's file, its tables not yet looked into."""

    model_config = ConfigDict(frozen=True)

    path: Path
    task: str
    options: Table
    profiles: dict[str, Table]
    variants: dict[str, Table]

    @classmethod
    def read(cls, name_or_path: str | Path) -> Self:
        path = _find(name_or_path)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SpecError(f"{path}: is not TOML: {error}") from error
        if problems := list(_problems(table, path=path)):
            raise SpecError("\n".join(problems))
        return cls(
            path=path,
            task=table["task"],
            options=table.get("options", {}),
            profiles=table["profiles"],
            variants=table.get("variants", {}),
        )

    def variants_of(self, profile: str) -> dict[str, Table]:
        """The variants that a profile has: all but those that are of other profiles alone."""
        if profile not in self.profiles:
            return {}
        return {name: entry for name, entry in self.variants.items() if profile in entry.get("profiles", (profile,))}


def _find(name_or_path: str | Path) -> Path:
    """A string that could be a name is one; with a suffix or a folder it is a path."""
    if isinstance(name_or_path, str) and re.fullmatch(NAME, name_or_path):
        if name_or_path not in available_specs():
            there_are = ", ".join(available_specs())
            raise SpecError(
                f"there is no spec {name_or_path!r}: there are {there_are}, or give the path of a TOML file"
            )
        return SPECS / f"{name_or_path}.toml"
    return Path(name_or_path)


def _problems(table: Table, *, path: Path) -> Iterator[str]:
    """What is wrong with the file's frame: top level, names and keys of all profiles and variants."""
    where = str(path)
    if not re.fullmatch(NAME, path.stem):
        yield f"{where}: the file's name names the spec: use small letters, digits and single hyphens"
    if "schema" not in table:
        yield f"{where}: schema is missing: add schema = 1"
    elif table["schema"] != 1 or table["schema"] is True:
        yield f"{where}: schema = {shown(table['schema'])}: this version of the suite reads 1"
    known = ("schema", "task", "options", "profiles", "variants")
    yield from (unknown_key(key, where=where, known=known) for key in table if key not in known)
    if "task" not in table:
        yield f"{where}: task is missing: add one of {', '.join(PIPELINES)}"
    elif table["task"] not in list(PIPELINES):
        yield f"{where}: task = {shown(table['task'])}: there is {', '.join(PIPELINES)}"
    if not isinstance(table.get("options", {}), dict):
        yield f"{where}: options = {shown(table['options'])}: it must be a table"
    if "profiles" not in table or table["profiles"] == {}:
        yield f"{where}: profiles is missing: add a table [profiles.NAME]"
    for group, keys in (("profiles", PROFILE_KEYS), ("variants", VARIANT_KEYS)):
        entries = table.get(group, {})
        if not isinstance(entries, dict):
            yield f"{where}: {group} = {shown(entries)}: it must be a table of tables [{group}.NAME]"
            continue
        for name, entry in entries.items():
            within = f"{group}.{name}"
            if not re.fullmatch(NAME, name):
                yield f"{where}: {within}: name it with small letters, digits and single hyphens"
            if not isinstance(entry, dict):
                yield f"{where}: {within} = {shown(entry)}: it must be a table"
                continue
            yield from (unknown_key(f"{within}.{key}", where=where, known=keys) for key in entry if key not in keys)
            for part in PARTS:
                if not isinstance(entry.get(part, {}), dict):
                    yield f"{where}: {within}.{part} = {shown(entry[part])}: it must be a table"
            if group == "variants" and "profiles" in entry:
                of, there = entry["profiles"], list(table.get("profiles", {}))
                if not isinstance(of, list) or not of or not all(profile in there for profile in of):
                    yield f"{where}: {within}.profiles = {shown(of)}: it must be a list of some of {', '.join(there)}"
            if group == "variants" and "division" in entry:
                yield from _problems_of_division(entry, where=where, within=within)
    for location, value in _leaves(table):
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{where}: {key_path(location)} = {value}: it must be a finite number"


def _problems_of_division(entry: Table, *, where: str, within: str) -> Iterator[str]:
    """The open division trains otherwise on the same data to the same metric: what is measured stays."""
    if (division := entry["division"]) not in list(DIVISIONS):
        yield f"{where}: {within}.division = {shown(division)}: say {' or '.join(DIVISIONS)}"
    if division != "open":
        return
    for part in PARTS:
        if part != "recipe" and part in entry:
            yield (
                f"{where}: {within}.{part}: the open division changes the recipe alone, so that it is judged by the "
                f'same metric on the same data: remove {part}, or division = "open"'
            )


def _leaves(value: Any, location: tuple[int | str, ...] = ()) -> Iterator[tuple[tuple[int | str, ...], Any]]:
    match value:
        case Mapping():
            for key, item in value.items():
                yield from _leaves(item, (*location, key))
        case list():
            for index, item in enumerate(value):
                yield from _leaves(item, (*location, index))
        case _:
            yield location, value
