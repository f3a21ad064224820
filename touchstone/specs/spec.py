"""A spec: what is trained on what, from which checkpoint, how, and which metrics are asserted. One TOML file a task.

    schema = 1
    task = "token-classification"

    [options]                               # of the task, for all profiles

    [profiles.small]                        # one for each size of input
    assert = ["f1"]                         # the metrics that must be as expected
    timeout_seconds = 3600
    [profiles.small.data]                   # where examples come from
    [profiles.small.checkpoint]             # where model and tokenizer come from
    [profiles.small.recipe]                 # hyper-parameters
    [profiles.small.options]                # overrides [options]

    [variants.first.options]                # overrides the profile's, whichever it is; likewise the other three parts
    [variants.first]
    profiles = ["small"]                    # of these profiles only; of all where it is not said
    [variants.fast]
    division = "open"                       # another recipe (and nothing else) to the quality that the main spec's
    [variants.fast.recipe]                  # expectation says; it has no expectation of its own

Unknown keys are refused, and so is a value of another type than its key's: nothing is guessed.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, StringConstraints, ValidationError, model_validator

from touchstone.engines.training import Recipe
from touchstone.fields import key_path, of_validation, shown, unknown_key
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import Options
from touchstone.sources import (
    CheckpointSettings,
    DataSettings,
    HubCheckpoint,
    HubData,
    InstalledCode,
    MicroworldCheckpoint,
    MicroworldData,
)
from touchstone.specs.fingerprint import measured_hash

# The frame of a spec's file: where it is found, and which keys, profiles and variants it may have. What stands in a
# profile's parts (data, checkpoint, recipe, options) is looked into by `touchstone.specs.spec`.


SPECS = (Path(__file__).parents[1] / "suite" / "specs").resolve()
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


__all__ = ["SPECS", "Spec", "SpecError", "available_specs", "load_spec", "profiles", "variants"]

BY_SOURCE: dict[str, dict[str, type[BaseModel]]] = {
    "data": {"microworld": MicroworldData, "hub": HubData, "installed-code": InstalledCode},
    "checkpoint": {"microworld": MicroworldCheckpoint, "hub": HubCheckpoint},
}
Model = TypeVar("Model", bound=BaseModel)


class Spec(BaseModel):
    """One profile (and variant) of a spec, resolved: nothing is left to look up.

    Attributes:
        path: the TOML file. Expectations lie beside it.
        division: `closed` trains the task's recipe as it is, and is judged by its own expectation; `open` trains a
            recipe of its own, and is judged by the expectation of `closed_spec`.
        overrides: `dataset` and `checkpoint` that the user gave in the spec's stead.
        assertions: names of the metrics that must be as expected.
        minutes: what it takes, roughly, on a machine that the profile is meant for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    task: str
    variant: str | None
    division: Literal["closed", "open"] = "closed"
    profile: str
    data: DataSettings
    checkpoint: CheckpointSettings
    options: SerializeAsAny[Options]
    recipe: Recipe
    overrides: dict[Literal["dataset", "checkpoint"], str] = {}
    eval_batch_size: int
    assertions: tuple[str, ...]
    timeout_seconds: float
    minutes: float | None

    @model_validator(mode="before")
    @classmethod
    def _options_are_the_tasks(cls, fields: Any) -> Any:
        """So that a spec can be had back from its JSON."""
        if isinstance(fields, dict) and isinstance(fields.get("options"), dict) and fields.get("task") in PIPELINES:
            return fields | {"options": PIPELINES[fields["task"]].Options.model_validate(fields["options"])}
        return fields

    @property
    def name(self) -> str:
        """`token-classification`, or `token-classification+first` of a variant: the file's name, and the variant's."""
        return self.path.stem if self.variant is None else f"{self.path.stem}+{self.variant}"

    @property
    def resolved(self) -> dict[str, Any]:
        """All of it as plain JSON values, but for where the file lies."""
        return self.model_dump(mode="json", exclude={"path"})

    @property
    def hash(self) -> str:
        """Names what is measured: see `touchstone.specs.fingerprint`."""
        return measured_hash(self.resolved)

    @property
    def closed_spec(self) -> Spec:
        """Whose expectation judges this one: itself, or of the open division the profile's main spec.

        Raises:
            SpecError: its file was changed and cannot be used any more.
        """
        return self if self.division == "closed" else load_spec(self.path, profile=self.profile)

    def overridden(self, *, dataset: str | None = None, checkpoint: str | None = None) -> Self:
        """The spec on another data set or checkpoint: it measures something else, and so its hash is another."""
        given = {"dataset": dataset, "checkpoint": checkpoint}
        return self.model_copy(update={"overrides": {key: value for key, value in given.items() if value is not None}})


def profiles(name_or_path: str | Path) -> list[str]:
    """The profiles of a spec, in the file's order."""
    return list(SpecFile.read(name_or_path).profiles)


def variants(name_or_path: str | Path, *, profile: str) -> list[str]:
    """The variants that one profile of a spec has, in the file's order; none if the spec lacks the profile."""
    return list(SpecFile.read(name_or_path).variants_of(profile))


def load_spec(name_or_path: str | Path, *, profile: str, variant: str | None = None) -> Spec:
    """Read one profile of a spec, by the name of one that comes with the suite or by the path of a TOML file.

    Raises:
        SpecError: no such spec, profile or variant; an unknown or missing key; a value that is not of its type or out
            of its range.
    """
    file = SpecFile.read(name_or_path)
    where = str(file.path)
    if profile not in file.profiles:
        raise SpecError(f"{where}: has no profile {profile!r}: it has {', '.join(file.profiles)}")
    if variant is not None and variant not in (of_profile := file.variants_of(profile)):
        has = ", ".join(of_profile) or "none"
        raise SpecError(f"{where}: has no variant {variant!r} in profile {profile}: it has {has}")
    profile_table = file.profiles[profile]
    variant_table = file.variants[variant] if variant is not None else {}
    problems: list[str] = []

    def part(name: str) -> Any:
        layers = [
            ("options", file.options if name == "options" else {}),
            (f"profiles.{profile}.{name}", profile_table.get(name, {})),
            (f"variants.{variant}.{name}", variant_table.get(name, {})),
        ]
        merged, origin = _merged(layers)
        kind: type[BaseModel] = Recipe if name == "recipe" else PIPELINES[file.task].Options
        if name in BY_SOURCE:
            source = merged.get("source")
            if source not in list(BY_SOURCE[name]):
                given = "is missing" if source is None else f"= {shown(source)}"
                choice = " or ".join(BY_SOURCE[name])
                problems.append(f"{where}: {origin.get('source', layers[1][0])}.source {given}: say {choice}")
                return None
            kind = BY_SOURCE[name][source]
        return _validated(
            kind, merged, where=where, within=lambda key: origin.get(key, layers[1][0]), problems=problems
        )

    parts = {name: part(name) for name in PARTS}
    settings = _validated(
        _Settings,
        {key: value for key, value in profile_table.items() if key not in PARTS},
        where=where,
        within=lambda key: f"profiles.{profile}",
        problems=problems,
    )
    if problems:
        raise SpecError("\n".join(problems))
    assert settings is not None
    spec = Spec(
        path=file.path,
        task=file.task,
        variant=variant,
        division=variant_table.get("division", "closed"),
        profile=profile,
        eval_batch_size=settings.eval_batch_size,
        assertions=settings.assertions,
        timeout_seconds=settings.timeout_seconds,
        minutes=settings.minutes,
        **parts,
    )
    if spec.division == "open" and spec.hash == spec.closed_spec.hash:
        raise SpecError(
            f"{where}: variants.{variant}.recipe changes nothing of profiles.{profile}.recipe: change it, "
            'or remove division = "open"'
        )
    return spec


class _Settings(BaseModel):
    """What a profile says beside its parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    assertions: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(alias="assert", min_length=1)
    timeout_seconds: float = Field(gt=0)
    minutes: float | None = Field(default=None, gt=0)
    eval_batch_size: int = Field(default=64, gt=0)


def _merged(layers: Sequence[tuple[str, Table]]) -> tuple[Table, dict[str, str]]:
    """Later tables over earlier ones, and where each key comes from. Another `source` replaces the whole table: its
    keys are others.
    """
    merged: Table = {}
    origin: dict[str, str] = {}
    for place, table in layers:
        if merged.get("source") not in (None, table.get("source", merged.get("source"))):
            merged, origin = {}, {}
        merged |= table
        origin |= dict.fromkeys(table, place)
    return merged, origin


def _validated(
    model: type[Model], table: Table, *, where: str, within: Callable[[str], str], problems: list[str]
) -> Model | None:
    """As strictly as JSON is read: no text for a number, no number for text, but lists for tuples. Appends to
    `problems`.
    """
    try:
        return model.model_validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        known = [field.alias or name for name, field in model.model_fields.items()]
        problems.extend(of_validation(error, where=where, known=known, within=within))
        return None
