"""What a metric should be: the values of earlier runs with where they come from, never a hand-written tolerance."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from touchstone.fields import Finite, of_validation
from touchstone.files import write_atomically

if TYPE_CHECKING:
    from touchstone.specs.spec import Spec


class ExpectationError(Exception):
    """A file of expectations cannot be used: names file and key."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measured(_Model):
    """This suite measured the values (`touchstone calibrate`)."""

    kind: Literal["measured"] = "measured"
    hardware: str
    """The machine's human name and id."""
    software: dict[str, str]
    """Package to version."""
    engine: str
    processes: int = Field(default=1, gt=0, exclude_if=lambda value: value == 1)
    """That trained each run together."""
    precision: str
    date: datetime.date
    commit: str | None = None
    dataset_fingerprint: str
    """Of the rows that were read: the spec names a data set, this says what was in it."""


class Card(_Model):
    """One published run."""

    name: str
    url: str
    note: str = ""


class Published(_Model):
    """Others published the values; one source a value."""

    kind: Literal["published"] = "published"
    sources: tuple[Card, ...]
    note: str = ""


class Expectation(_Model):
    """The values of one metric, one a run.

    Attributes:
        seeds: of each value's run; all the same where the runs differ in machine and versions alone.
        spec_hash: what was measured. With another spec the expectation is not applied.
        scale: on which the values are taken as normally distributed.
        lower, upper: what the metric can be at all.
        stale: why it must not be applied, or None. Not in the file: `load_expectations` finds it out.
        target: whether it judges a run of the open division, which has to reach it and may pass it. Not in the file
            either: it depends on who asks.
    """

    metric: str = Field(min_length=1)
    values: tuple[Finite, ...] = Field(min_length=1)
    seeds: tuple[int, ...]
    higher_is_better: bool
    scale: Literal["linear", "log"] = "linear"
    lower: Finite | None = None
    upper: Finite | None = None
    spec_hash: str = Field(pattern="^[0-9a-f]{64}$")
    provenance: Annotated[Measured | Published, Field(discriminator="kind")]
    stale: str | None = Field(default=None, exclude=True)
    target: bool = Field(default=False, exclude=True)

    @property
    def kind(self) -> Literal["measured", "published"]:
        return self.provenance.kind

    @property
    def one_seed(self) -> bool:
        """Whether the runs share their seed, so that their spread is that of machines and versions and not of seeds."""
        return len(self.seeds) > 1 and len(set(self.seeds)) == 1

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self.seeds) != len(self.values):
            raise ValueError(f"{len(self.values)} values and {len(self.seeds)} seeds: give one seed a value")
        if isinstance(self.provenance, Measured) and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat: a measured value needs a seed of its own")
        if isinstance(self.provenance, Published) and len(self.provenance.sources) != len(self.values):
            raise ValueError(
                f"{len(self.values)} values and {len(self.provenance.sources)} sources: give one source a value"
            )
        if self.scale == "log" and min(self.values) <= 0:
            raise ValueError(f"the value {min(self.values)} has no logarithm: use scale linear")
        for value in self.values:
            if (self.lower is not None and value < self.lower) or (self.upper is not None and value > self.upper):
                raise ValueError(f"the value {value} is outside [{self.lower}, {self.upper}]")
        return self


class _File(_Model):
    schema_version: Literal[1]
    name: str
    profile: str
    expectations: tuple[Expectation, ...]


def expectations_path(spec: Spec) -> Path:
    """Beside the spec's file: `expectations/NAME.PROFILE.json`; of the open division that of the closed one."""
    return spec.path.parent / "expectations" / f"{spec.closed_spec.name}.{spec.profile}.json"


def load_expectations(spec: Spec, *, dataset_fingerprint: str | None = None) -> dict[str, Expectation]:
    """Metric to expectation; empty where there is no file.

    One that was measured with another spec, or on other data than `dataset_fingerprint` names, comes with `stale` set,
    and `judge` gives no verdict by it. A spec of the open division is judged by those of its `closed_spec`, as targets.

    Raises:
        ExpectationError: the file cannot be read or has an unknown, missing or wrong key.
    """
    path, own = expectations_path(spec), spec.closed_spec
    try:
        file = _File.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ExpectationError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise ExpectationError("\n".join(of_validation(error, where=str(path), known=_File.model_fields))) from error
    if (file.name, file.profile) != (own.name, own.profile):
        raise ExpectationError(
            f"{path}: is for {file.name}, profile {file.profile}: rename it, "
            f"or calibrate {own.name} --profile {own.profile}"
        )
    metrics = [expectation.metric for expectation in file.expectations]
    if repeated := sorted({metric for metric in metrics if metrics.count(metric) > 1}):
        raise ExpectationError(f"{path}: expectations of {', '.join(repeated)} occur twice: keep one of each")
    target = spec.division == "open"
    checked = {e.metric: _checked(e, own, dataset_fingerprint) for e in file.expectations}
    return {metric: e.model_copy(update={"target": target}) for metric, e in checked.items()}


def save_expectations(spec: Spec, expectations: Iterable[Expectation]) -> Path:
    """Write them, all of the spec's, where `load_expectations` looks, atomically.

    Raises:
        ExpectationError: one was measured with another spec, the spec is of the open division and is judged by that of
            another, or the file cannot be written.
    """
    if spec.division == "open":
        raise ExpectationError(
            f"{spec.name}: is of the open division and has no expectation of its own: calibrate {spec.closed_spec.name}"
        )
    chosen = tuple(expectations)
    for expectation in chosen:
        if expectation.spec_hash != spec.hash:
            raise ExpectationError(
                f"{expectation.metric}: is of spec {expectation.spec_hash[:12]}, and {spec.name} is {spec.hash[:12]}"
            )
    path = expectations_path(spec)
    file = _File(schema_version=1, name=spec.name, profile=spec.profile, expectations=chosen)
    try:
        write_atomically(path, file.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise ExpectationError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _checked(expectation: Expectation, spec: Spec, dataset_fingerprint: str | None) -> Expectation:
    verb = "measured" if expectation.kind == "measured" else "published"
    stale = None
    if expectation.spec_hash != spec.hash:
        stale = f"stale: {verb} with another spec ({expectation.spec_hash[:12]}, and this is {spec.hash[:12]})"
    elif dataset_fingerprint is not None and isinstance(expectation.provenance, Measured):
        measured = expectation.provenance.dataset_fingerprint
        if measured != dataset_fingerprint:
            stale = f"stale: measured on other data ({measured[:19]}, and this is {dataset_fingerprint[:19]})"
    return expectation.model_copy(update={"stale": stale})
