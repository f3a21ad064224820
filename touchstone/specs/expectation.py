"""Expectations: the values a metric had in earlier runs, with their provenance. No tolerance is written by hand."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError, model_validator
from typing_extensions import Self

from touchstone.fields import Digest, Finite, FrozenModel, key_names, validation_problems
from touchstone.files import write_atomically

if TYPE_CHECKING:
    from touchstone.specs.spec import Spec


class ExpectationError(Exception):
    """A file of expectations cannot be used. The message names file and key."""


class Measured(FrozenModel):
    """The values were measured with this suite (`touchstone calibrate`)."""

    kind: Literal["measured"] = "measured"
    hardware: str
    """The machine's name and id."""
    software: dict[str, str]
    """Versions by package."""
    engine: str
    processes: int = Field(default=1, gt=0, exclude_if=lambda value: value == 1)
    """The number of processes that trained each run."""
    precision: str
    date: datetime.date
    commit: str | None = None
    dataset_fingerprint: str
    """Fingerprint of the rows that were read. The spec only names the data set."""


class Card(FrozenModel):
    """One published run."""

    name: str
    url: str
    note: str = ""


class Published(FrozenModel):
    """The values were published by others; there is one source for each value."""

    kind: Literal["published"] = "published"
    sources: tuple[Card, ...]
    note: str = ""


class Expectation(FrozenModel):
    """The values of one metric, one for each run.

    Attributes:
        seeds: the seed of each run. All seeds are equal if the runs differ only in machine and versions.
        spec_hash: hash of the spec that was measured. The expectation does not apply to other specs.
        scale: the scale on which the values are assumed to be normally distributed.
        lower, upper: the range of the metric.
        stale: why the expectation must not be applied, or None. Not in the file: `load_expectations` sets it.
        target: True if it judges a run of the open division, which must reach it and may exceed it. Not in the file:
            `load_expectations` sets it.
    """

    metric: str = Field(min_length=1)
    values: tuple[Finite, ...] = Field(min_length=1)
    seeds: tuple[int, ...]
    higher_is_better: bool
    scale: Literal["linear", "log"] = "linear"
    lower: Finite | None = None
    upper: Finite | None = None
    spec_hash: Digest
    provenance: Annotated[Measured | Published, Field(discriminator="kind")]
    stale: str | None = Field(default=None, exclude=True)
    target: bool = Field(default=False, exclude=True)

    @property
    def kind(self) -> Literal["measured", "published"]:
        return self.provenance.kind

    @property
    def one_seed(self) -> bool:
        """True if all runs have the same seed: their spread then comes from machines and versions, not from seeds."""
        return len(self.seeds) > 1 and len(set(self.seeds)) == 1

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self.seeds) != len(self.values):
            raise ValueError(f"{len(self.values)} values and {len(self.seeds)} seeds: give one seed for each value")
        if isinstance(self.provenance, Measured) and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat: measure each value with a different seed")
        if isinstance(self.provenance, Published) and len(self.provenance.sources) != len(self.values):
            raise ValueError(
                f"{len(self.values)} values and {len(self.provenance.sources)} sources: give one source for each value"
            )
        if self.scale == "log" and min(self.values) <= 0:
            raise ValueError(f"the value {min(self.values)} has no logarithm: use scale linear")
        for value in self.values:
            if (self.lower is not None and value < self.lower) or (self.upper is not None and value > self.upper):
                raise ValueError(f"the value {value} is outside [{self.lower}, {self.upper}]")
        return self


class _File(FrozenModel):
    schema_version: Literal[1]
    name: str
    profile: str
    expectations: tuple[Expectation, ...]


def expectations_path(spec: Spec) -> Path:
    """Return `expectations/NAME.PROFILE.json` next to the spec's file; for an open spec, the closed spec's path."""
    return spec.path.parent / "expectations" / f"{spec.closed_spec.name}.{spec.profile}.json"


def load_expectations(spec: Spec, *, dataset_fingerprint: str | None = None) -> dict[str, Expectation]:
    """Return the expectations of a spec by metric; an empty dict if there is no file.

    An expectation that was measured with another spec, or on data with another fingerprint than `dataset_fingerprint`,
    has `stale` set, and `judge` gives no verdict from it. A spec of the open division gets the expectations of its
    `closed_spec`, as targets.

    Raises:
        ExpectationError: the file cannot be read or has an unknown, missing or wrong key.
    """
    path, own = expectations_path(spec), spec.closed_spec
    try:
        file = _File.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ExpectationError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        problems = validation_problems(error, where=str(path), known=key_names(_File))
        raise ExpectationError("\n".join(problems)) from error
    if (file.name, file.profile) != (own.name, own.profile):
        raise ExpectationError(
            f"{path}: belongs to {file.name}, profile {file.profile}: rename the file, "
            f"or run touchstone calibrate {own.name} --profile {own.profile}"
        )
    metrics = [expectation.metric for expectation in file.expectations]
    if repeated := sorted({metric for metric in metrics if metrics.count(metric) > 1}):
        raise ExpectationError(f"{path}: expectations of {', '.join(repeated)} occur twice: keep one for each metric")
    target = spec.division == "open"
    return {
        e.metric: e.model_copy(update={"target": target, "stale": _stale(e, own, dataset_fingerprint)})
        for e in file.expectations
    }


def save_expectations(spec: Spec, expectations: Iterable[Expectation]) -> Path:
    """Write all expectations of a spec to the file that `load_expectations` reads, atomically.

    Raises:
        ExpectationError: an expectation was measured with another spec, the spec belongs to the open division (the
            closed spec's expectations judge it), or the file cannot be written.
    """
    if spec.division == "open":
        raise ExpectationError(
            f"{spec.name} belongs to the open division, which has no expectations: calibrate {spec.closed_spec.name}"
        )
    chosen = tuple(expectations)
    for expectation in chosen:
        if expectation.spec_hash != spec.hash:
            raise ExpectationError(
                f"{expectation.metric} was measured with spec {expectation.spec_hash[:12]}, "
                f"but {spec.name} is {spec.hash[:12]}: calibrate again"
            )
    path = expectations_path(spec)
    file = _File(schema_version=1, name=spec.name, profile=spec.profile, expectations=chosen)
    try:
        write_atomically(path, file.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise ExpectationError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _stale(expectation: Expectation, spec: Spec, dataset_fingerprint: str | None) -> str | None:
    """Return why the expectation does not apply, or None if it does."""
    if expectation.spec_hash != spec.hash:
        return f"stale: {expectation.kind} with another spec ({expectation.spec_hash[:12]}, this is {spec.hash[:12]})"
    if dataset_fingerprint is not None and isinstance(expectation.provenance, Measured):
        measured = expectation.provenance.dataset_fingerprint
        if measured != dataset_fingerprint:
            return f"stale: measured on other data ({measured[:19]}, this is {dataset_fingerprint[:19]})"
    return None
