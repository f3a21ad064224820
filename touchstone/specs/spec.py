"""A spec: the task, the data, the checkpoint, the recipe, and the metrics that are asserted.

Each task has one TOML file:

    schema = 1
    task = "token-classification"

    [options]                               # task options, for all profiles

    [profiles.small]                        # one table for each size of input
    assert = ["f1"]                         # the metrics that must be as expected
    timeout_seconds = 3600
    [profiles.small.data]                   # where the examples come from
    [profiles.small.checkpoint]             # where model and tokenizer come from
    [profiles.small.recipe]                 # hyper-parameters
    [profiles.small.options]                # overrides [options]

    [variants.first]
    profiles = ["small"]                    # the profiles that have this variant; default: all
    [variants.first.options]                # overrides the profile's options; likewise the other three parts
    [variants.fast]
    division = "open"                       # another recipe (and nothing else), trained to the quality that the main
    [variants.fast.recipe]                  # spec's expectation gives; it has no expectation itself

The four parts (data, checkpoint, recipe, options) are each merged from the layers options < profile < variant. Unknown
keys and values of a wrong type are errors.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, SerializeAsAny, StringConstraints, ValidationError, model_validator
from typing_extensions import Self

from touchstone.engines.training import Recipe
from touchstone.fields import FrozenModel, key_names, key_path, shown, unknown_key, validation_problems
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
from touchstone.specs import measured_hash

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SPECS = (Path(__file__).parents[1] / "suite" / "specs").resolve()
NAME = r"^[a-z0-9]+([_-][a-z0-9]+)*$"
"""The names of specs, profiles and variants, which become parts of file names."""
PARTS = ("data", "checkpoint", "recipe", "options")
VARIANT_KEYS = ("profiles", "division", *PARTS)
DIVISIONS = ("closed", "open")
"""MLPerf's terms: the closed division trains the given recipe, the open division another recipe to the same quality."""
PROFILE_KEYS = ("assert", "timeout_seconds", "minutes", "eval_batch_size", *PARTS)
Table = dict[str, Any]


class SpecError(Exception):
    """A spec cannot be used. The message has one line for each problem, with file, key, value and remedy."""


def available_specs() -> list[str]:
    """Return the names of the specs that come with the suite."""
    return sorted(path.stem for path in SPECS.glob("*.toml"))


class SpecFile(FrozenModel):
    """A spec's file with valid top-level keys, profile names and variant names. Its parts are not validated yet."""

    path: Path
    task: str
    options: Table
    profiles: dict[str, Table]
    variants: dict[str, Table]

    @classmethod
    def read(cls, name_or_path: str | Path) -> Self:
        """Read a spec by name or path.

        Raises:
            SpecError: there is no such file, it is not TOML, or a key outside the parts is wrong.
        """
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
        """Return the variants of a profile: those that list it, and those that list no profiles."""
        if profile not in self.profiles:
            return {}
        return {name: entry for name, entry in self.variants.items() if profile in entry.get("profiles", (profile,))}


def _find(name_or_path: str | Path) -> Path:
    """Return the path of a spec. A string that has the form of a name is a name, anything else is a path."""
    if isinstance(name_or_path, str) and re.fullmatch(NAME, name_or_path):
        if name_or_path not in available_specs():
            names = ", ".join(available_specs())
            raise SpecError(f"there is no spec {name_or_path!r}: use one of {names}, or the path of a TOML file")
        return SPECS / f"{name_or_path}.toml"
    return Path(name_or_path)


def _problems(table: Table, *, path: Path) -> Iterator[str]:
    """Yield the problems outside the parts: top-level keys, names and keys of all profiles and variants."""
    where = str(path)
    if not re.fullmatch(NAME, path.stem):
        yield f"{where}: the file's name is the spec's name: use lower-case letters, digits and single hyphens"
    if "schema" not in table:
        yield f"{where}: schema is missing: add schema = 1"
    elif table["schema"] != 1 or table["schema"] is True:
        yield f"{where}: schema = {shown(table['schema'])}: this version of the suite reads 1"
    known = ("schema", "task", "options", "profiles", "variants")
    yield from (unknown_key(key, where=where, known=known) for key in table if key not in known)
    if "task" not in table:
        yield f"{where}: task is missing: add one of {', '.join(PIPELINES)}"
    elif table["task"] not in list(PIPELINES):
        yield f"{where}: task = {shown(table['task'])}: use one of {', '.join(PIPELINES)}"
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
                yield f"{where}: {within}: use lower-case letters, digits and single hyphens"
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
                    names = ", ".join(there)
                    yield f"{where}: {within}.profiles = {shown(of)}: it must be a list of profiles from {names}"
            if group == "variants" and "division" in entry:
                yield from _problems_of_division(entry, where=where, within=within)
    for location, value in _leaves(table):
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{where}: {key_path(location)} = {value}: it must be a finite number"


def _problems_of_division(entry: Table, *, where: str, within: str) -> Iterator[str]:
    """Yield the problems of a variant's division. The open division may change only the recipe."""
    if (division := entry["division"]) not in list(DIVISIONS):
        yield f"{where}: {within}.division = {shown(division)}: use {' or '.join(DIVISIONS)}"
    if division != "open":
        return
    for part in PARTS:
        if part != "recipe" and part in entry:
            yield (
                f"{where}: {within}.{part}: the open division changes only the recipe, so that the same metric on the "
                f'same data judges it: remove {part}, or remove division = "open"'
            )


def _leaves(value: Any, location: tuple[int | str, ...] = ()) -> Iterator[tuple[tuple[int | str, ...], Any]]:
    """Yield the key path and value of everything in a table that is neither a table nor a list."""
    match value:
        case Mapping():
            for key, item in value.items():
                yield from _leaves(item, (*location, key))
        case list():
            for index, item in enumerate(value):
                yield from _leaves(item, (*location, index))
        case _:
            yield location, value


BY_SOURCE: dict[str, dict[str, type[BaseModel]]] = {
    "data": {"microworld": MicroworldData, "hub": HubData, "installed-code": InstalledCode},
    "checkpoint": {"microworld": MicroworldCheckpoint, "hub": HubCheckpoint},
}
Part = TypeVar("Part", bound=BaseModel)


class Spec(FrozenModel):
    """One profile (and variant) of a spec, fully resolved.

    Attributes:
        path: the TOML file. The expectations are in a folder next to it.
        division: `closed` trains the task's recipe and is judged by its expectation; `open` trains another recipe and
            is judged by the expectation of `closed_spec`.
        overrides: the `dataset` and `checkpoint` with which the user replaced the spec's own.
        assertions: the names of the metrics that must be as expected.
        minutes: the approximate time on a machine that the profile is meant for.
    """

    path: Path
    task: str
    variant: str | None
    division: Literal["closed", "open"] = "closed"
    profile: str
    data: DataSettings
    checkpoint: CheckpointSettings
    options: SerializeAsAny[Options]
    recipe: Recipe
    overrides: dict[Literal["dataset", "checkpoint"], str] = Field(default_factory=dict)
    eval_batch_size: int
    assertions: tuple[str, ...]
    timeout_seconds: float
    minutes: float | None

    @model_validator(mode="before")
    @classmethod
    def _options_are_the_tasks(cls, fields: Any) -> Any:
        """Validate the options with the task's own type, so that a spec can be read back from its JSON."""
        if isinstance(fields, dict) and isinstance(fields.get("options"), dict) and fields.get("task") in PIPELINES:
            return fields | {"options": PIPELINES[fields["task"]].Options.model_validate(fields["options"])}
        return fields

    @property
    def name(self) -> str:
        """The file's name, with the variant's if there is one: `token-classification+first`."""
        return self.path.stem if self.variant is None else f"{self.path.stem}+{self.variant}"

    @property
    def resolved(self) -> dict[str, Any]:
        """The spec as plain JSON values, without the path."""
        return self.model_dump(mode="json", exclude={"path"})

    @property
    def hash(self) -> str:
        """The hash of what is measured: see `touchstone.specs.measured_hash`."""
        return measured_hash(self.resolved)

    @property
    def closed_spec(self) -> Spec:
        """The spec whose expectation judges this one: itself, or for the open division the profile's main spec.

        Raises:
            SpecError: the file was changed since and is no longer valid.
        """
        return self if self.division == "closed" else load_spec(self.path, profile=self.profile)

    def overridden(self, *, dataset: str | None = None, checkpoint: str | None = None) -> Self:
        """Return this spec with another data set or checkpoint. It measures something else, so its hash differs."""
        given = {"dataset": dataset, "checkpoint": checkpoint}
        return self.model_copy(update={"overrides": {key: value for key, value in given.items() if value is not None}})


def profiles(name_or_path: str | Path) -> list[str]:
    """Return the profiles of a spec, in the file's order."""
    return list(SpecFile.read(name_or_path).profiles)


def variants(name_or_path: str | Path, *, profile: str) -> list[str]:
    """Return the variants of one profile of a spec, in the file's order; an empty list for an unknown profile."""
    return list(SpecFile.read(name_or_path).variants_of(profile))


def load_spec(name_or_path: str | Path, *, profile: str, variant: str | None = None) -> Spec:
    """Read one profile of a spec, by the name of a spec that comes with the suite or by the path of a TOML file.

    Raises:
        SpecError: there is no such spec, profile or variant, a key is unknown or missing, or a value has the wrong type
            or is out of range.
    """
    file = SpecFile.read(name_or_path)
    if profile not in file.profiles:
        raise SpecError(f"{file.path}: has no profile {profile!r}: use one of {', '.join(file.profiles)}")
    if variant is not None and variant not in (known := file.variants_of(profile)):
        names = ", ".join(known) or "none"
        raise SpecError(f"{file.path}: has no variant {variant!r} in profile {profile}: available are {names}")
    own = file.profiles[profile]
    changes = file.variants[variant] if variant is not None else {}
    problems: list[str] = []
    parts = {}
    for part in PARTS:
        layers = [
            ("options", file.options if part == "options" else {}),
            (f"profiles.{profile}.{part}", own.get(part, {})),
            (f"variants.{variant}.{part}", changes.get(part, {})),
        ]
        parts[part] = _resolved(part, layers, file=file, problems=problems)
    settings = _validated(
        _Settings,
        {key: value for key, value in own.items() if key not in PARTS},
        where=str(file.path),
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
        division=changes.get("division", "closed"),
        profile=profile,
        eval_batch_size=settings.eval_batch_size,
        assertions=settings.assertions,
        timeout_seconds=settings.timeout_seconds,
        minutes=settings.minutes,
        **parts,
    )
    if spec.division == "open" and spec.hash == spec.closed_spec.hash:
        raise SpecError(
            f"{file.path}: variants.{variant}.recipe is the same as profiles.{profile}.recipe: change it, "
            'or remove division = "open"'
        )
    return spec


class _Settings(FrozenModel):
    """The keys of a profile that are not parts."""

    assertions: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(alias="assert", min_length=1)
    timeout_seconds: float = Field(gt=0)
    minutes: float | None = Field(default=None, gt=0)
    eval_batch_size: int = Field(default=64, gt=0)


def _resolved(part: str, layers: Sequence[tuple[str, Table]], *, file: SpecFile, problems: list[str]) -> Any:
    """Merge and validate one part of a spec; None, and a line in `problems` for each problem, if it is not valid."""
    where, home = str(file.path), layers[1][0]
    merged, origin = _merged(layers)
    kind: type[BaseModel] = Recipe if part == "recipe" else PIPELINES[file.task].Options
    if part in BY_SOURCE:
        source = merged.get("source")
        if source not in list(BY_SOURCE[part]):
            value = "is missing" if source is None else f"= {shown(source)}"
            choice = " or ".join(BY_SOURCE[part])
            problems.append(f"{where}: {origin.get('source', home)}.source {value}: use {choice}")
            return None
        kind = BY_SOURCE[part][source]
    return _validated(kind, merged, where=where, within=lambda key: origin.get(key, home), problems=problems)


def _merged(layers: Sequence[tuple[str, Table]]) -> tuple[Table, dict[str, str]]:
    """Merge tables, later ones over earlier ones; return the result and, for each key, the table it comes from.

    A table with another `source` replaces the earlier ones completely, because its keys are different.
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
    model: type[Part], table: Table, *, where: str, within: Callable[[str], str], problems: list[str]
) -> Part | None:
    """Validate a table; None, and a line in `problems` for each problem, if it is not valid.

    As strict as JSON: no text for a number, no number for text, but lists for tuples.
    """
    try:
        return model.model_validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        problems.extend(validation_problems(error, where=where, known=key_names(model), within=within))
        return None
