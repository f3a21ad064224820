"""How fast the engines train on one machine: the steps of each, taken in turn, in one JSON file a profile.

Raw figures are kept and everything else is computed from them. `python -m suite.records.speed` prints the JSON Schema
(kept in `suite/records/speed.schema.json`).
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from suite.numbers import Amount
from suite.records.hardware import Hardware, Software
from suite.records.record import Digest, Slug
from suite.records.stored import parse_stored, read_bytes, schema_of, write_stored
from suite.records.version import SuiteVersion

Round = Annotated[tuple[Amount, ...], Field(min_length=1, max_length=1000)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Steps(_Model):
    """An engine's training steps.

    Attributes:
        rounds: seconds of each step, by round. Round i of all engines was run one after the other.
        samples, tokens: of a step on average; real tokens.
        floor_seconds: what the step's necessary work takes at the rates measured on the machine; see docs/speed.md.
    """

    engine: Slug
    precision: Slug
    rounds: Annotated[tuple[Round, ...], Field(min_length=1, max_length=100)]
    samples: Amount
    tokens: Amount
    floor_seconds: Amount | None

    @property
    def seconds(self) -> float:
        """The median step of all rounds."""
        return statistics.median(second for each in self.rounds for second in each)

    @property
    def fraction_of_floor(self) -> float | None:
        return None if self.floor_seconds is None else self.floor_seconds / self.seconds

    def ratio(self, first: Steps) -> float:
        """How many times faster than the first engine."""
        return first.seconds / self.seconds

    def spread(self, first: Steps) -> tuple[float, float]:
        """The least and the largest ratio of two rounds that were run one after the other."""
        pairs = zip(first.rounds, self.rounds, strict=True)
        ratios = [statistics.median(other) / max(statistics.median(own), 1e-9) for other, own in pairs]
        return min(ratios), max(ratios)


class TaskSpeed(_Model):
    """One task; the first engine is what the others are judged against."""

    task: Slug
    spec_hash: Digest
    steps_in_all: Annotated[int, Field(ge=1, lt=2**63)]
    """Of the whole recipe: steps times seconds is the time to train, for all engines take the same steps."""
    engines: Annotated[tuple[Steps, ...], Field(min_length=1, max_length=20)]
    evaluation: Annotated[tuple[Steps, ...], Field(max_length=20)] = ()
    """Of some validation examples, all of them in one step; the first is Trainer's own evaluation."""

    @model_validator(mode="after")
    def _as_many_rounds_of_each(self) -> TaskSpeed:
        for raced in (self.engines, self.evaluation):
            if len({len(steps.rounds) for steps in raced}) > 1:
                raise ValueError("the engines differ in their number of rounds: they were not run in turn")
        return self


class Speed(_Model):
    schema_version: Literal[1] = 1
    profile: Slug
    tasks: tuple[TaskSpeed, ...]
    hardware: Hardware
    software: Software
    suite: SuiteVersion
    started: AwareDatetime
    finished: AwareDatetime

    @property
    def file_name(self) -> str:
        return f"speed.{self.profile}.json"


def write_speed(record: Speed, directory: Path) -> Path:
    """Write it as `directory/<machine>/speed.<profile>.json`; see `write_stored`."""
    return write_stored(record, directory / record.hardware.folder / record.file_name)


def read_speed(path: Path) -> Speed:
    """The record in a file.

    Raises:
        RecordError: no such file, too large, not JSON of this schema, an unknown or missing key, a value out of range.
    """
    return parse_stored(Speed, read_bytes(path, what="record of speed"), path=path)


def json_schema() -> str:
    """The JSON Schema of such a record, as it is kept in the repository."""
    return schema_of(Speed)


if __name__ == "__main__":
    print(json_schema(), end="")
