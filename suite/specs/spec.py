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
from collections.abc import Callable, Sequence
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
    InstalledCode,
    MicroworldCheckpoint,
    MicroworldData,
)
from suite.problems import of_validation, shown
from suite.specs.fingerprint import measured_hash
from suite.specs.spec_file import PARTS, SPECS, SpecError, SpecFile, Table, available_specs

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
        """Names what is measured: see `suite.specs.fingerprint`."""
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
