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

    [variants.first.options]                # overrides the profile's, whichever it is; likewise data, checkpoint,
    recipe

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

from reference.engines.training import Recipe
from reference.pipelines import PIPELINES
from reference.pipelines.pipeline import Options
from reference.sources import (
    CheckpointSettings,
    DataSettings,
    HubCheckpoint,
    HubData,
    MicroworldCheckpoint,
    MicroworldData,
)
from suite.fingerprint import measured_hash
from suite.problems import key_path, of_validation, shown, unknown_key

SPECS = Path(__file__).parent / "specs"
NAME = r"^[a-z0-9]+([_-][a-z0-9]+)*$"
"""Of a spec, profile or variant: it becomes part of file names."""
PARTS = ("data", "checkpoint", "recipe", "options")
PROFILE_KEYS = ("assert", "timeout_seconds", "minutes", "eval_batch_size", *PARTS)
BY_SOURCE: dict[str, dict[str, type[BaseModel]]] = {
    "data": {"microworld": MicroworldData, "hub": HubData},
    "checkpoint": {"microworld": MicroworldCheckpoint, "hub": HubCheckpoint},
}
Table = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)


class SpecError(Exception):
    """A spec cannot be used: one line a problem, each with file, key, value and remedy."""


class Spec(BaseModel):
    """One profile (and variant) of a spec, resolved: nothing is left to look up.

    Attributes:
        path: the TOML file. Expectations lie beside it.
        overrides: `dataset` and `checkpoint` that the user gave in the spec's stead.
        assertions: names of the metrics that must be as expected.
        minutes: what it takes, roughly, on a machine that the profile is meant for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    task: str
    variant: str | None
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
        """Names what is measured: see `suite.fingerprint`."""
        return measured_hash(self.resolved)

    def overridden(self, *, dataset: str | None = None, checkpoint: str | None = None) -> Self:
        """The spec on another data set or checkpoint: it measures something else, and so its hash is another."""
        given = {"dataset": dataset, "checkpoint": checkpoint}
        return self.model_copy(update={"overrides": {key: value for key, value in given.items() if value is not None}})


def available_specs() -> list[str]:
    """The names of the specs that come with the suite."""
    return sorted(path.stem for path in SPECS.glob("*.toml"))


def profiles(name_or_path: str | Path) -> list[str]:
    """The profiles of a spec, in the file's order."""
    return list(_File.read(name_or_path).profiles)


def variants(name_or_path: str | Path, *, profile: str) -> list[str]:
    """The variants of a spec, in the file's order; none if it lacks the profile, since all profiles have all
    variants.
    """
    file = _File.read(name_or_path)
    return list(file.variants) if profile in file.profiles else []


def load_spec(name_or_path: str | Path, *, profile: str, variant: str | None = None) -> Spec:
    """Read one profile of a spec, by the name of one that comes with the suite or by the path of a TOML file.

    Raises:
        SpecError: no such spec, profile or variant; an unknown or missing key; a value that is not of its type or out
            of its range.
    """
    file = _File.read(name_or_path)
    where = str(file.path)
    if profile not in file.profiles:
        raise SpecError(f"{where}: has no profile {profile!r}: it has {', '.join(file.profiles)}")
    if variant is not None and variant not in file.variants:
        has = ", ".join(file.variants) or "none"
        raise SpecError(f"{where}: has no variant {variant!r}: it has {has}")
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
    return Spec(
        path=file.path,
        task=file.task,
        variant=variant,
        profile=profile,
        eval_batch_size=settings.eval_batch_size,
        assertions=settings.assertions,
        timeout_seconds=settings.timeout_seconds,
        minutes=settings.minutes,
        **parts,
    )


class _Settings(BaseModel):
    """What a profile says beside its parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    assertions: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(alias="assert", min_length=1)
    timeout_seconds: float = Field(gt=0)
    minutes: float | None = Field(default=None, gt=0)
    eval_batch_size: int = Field(default=64, gt=0)


class _File(BaseModel):
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


def _find(name_or_path: str | Path) -> Path:
    """A string that could be a name is one; with a suffix or a folder it is a path."""
    if isinstance(name_or_path, str) and re.fullmatch(NAME, name_or_path):
        if name_or_path not in available_specs():
            there_are = ", ".join(available_specs())
            raise SpecError(f"there is no spec {name_or_path!r}: there are {there_are}, or give the path of a TOML file")
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
    for group, keys in (("profiles", PROFILE_KEYS), ("variants", PARTS)):
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
    for location, value in _leaves(table):
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{where}: {key_path(location)} = {value}: it must be a finite number"


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
