"""How fast the engines train on one machine: the steps of each, taken in turn, in one JSON file a profile.

Raw figures are kept and everything else is computed from them. `python -m touchstone.records.timing speed` prints the
JSON Schema (kept in `touchstone/records/speed.schema.json`).
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from touchstone.fields import Amount, Count, Line
from touchstone.files import parse_stored, read_bytes, schema_of, write_stored
from touchstone.records.machine import Hardware, Software, SuiteVersion
from touchstone.records.record import Digest, Slug

# How fast the stages are on one machine: all rounds of all that was timed, in one JSON file a profile. Raw figures
# are kept and everything else is computed from them. `python -m touchstone.records.timing` prints the JSON Schema
# (kept in `touchstone/records/throughput.schema.json`).


Peer = Literal["tokenizer", "course", "library", "copy"]
"""What a stage is judged against: the bare tokenizer on the same text, the course's way to the same result, that of
the installed libraries, and a copy of the result's bytes."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rounds(_Model):
    """One thing, timed several times. `tokens` is what one round goes through; those of slow peers go through less."""

    what: Line
    tokens: Annotated[int, Field(ge=1, lt=2**63)]
    seconds: Annotated[tuple[Amount, ...], Field(min_length=1, max_length=1000)]

    @property
    def ns_per_token(self) -> float:
        """The median round."""
        return statistics.median(self.seconds) / self.tokens * 1e9


class Growth(_Model):
    """The stage on more and more of the same data."""

    tokens: Annotated[int, Field(ge=1, lt=2**63)]
    seconds: Annotated[tuple[Amount, ...], Field(min_length=1, max_length=1000)]
    copy_seconds: Annotated[tuple[Amount, ...], Field(min_length=1, max_length=1000)]
    """Rounds of copying as many int64, in turn with the stage's: memory that comes fresh from the system costs more."""
    peak_bytes: Count
    """Allocated by Python and NumPy at most, beside the input."""

    @property
    def ns_per_token(self) -> float:
        """The best round: what is asked is how the work grows, not how quiet the machine is."""
        return min(self.seconds) / self.tokens * 1e9

    @property
    def copies(self) -> float:
        """The stage's time in copies of as many int64."""
        return min(self.seconds) / max(min(self.copy_seconds), 1e-9)

    @property
    def bytes_per_token(self) -> float:
        return self.peak_bytes / self.tokens


class Goal(_Model):
    """A stage takes at most `most` times what a peer takes for as many tokens."""

    peer: Peer
    most: Amount


class Stage(_Model):
    """Rounds were run in turn: one of each peer, one of ours, and again. So round i of all belongs together."""

    name: Slug
    ours: Rounds
    peers: dict[Peer, Rounds]
    goal: Goal | None
    growth: tuple[Growth, ...]

    def ratio(self, peer: Peer) -> float:
        """Our median time for a token to the peer's: below 1 is faster."""
        return self.ours.ns_per_token / self.peers[peer].ns_per_token

    def spread(self, peer: Peer) -> tuple[float, float]:
        """The least and the largest ratio of two rounds that were run one after the other."""
        other = self.peers[peer]
        pairs = zip(self.ours.seconds, other.seconds, strict=True)
        scale = other.tokens / self.ours.tokens
        ratios = [mine * scale / theirs for mine, theirs in pairs if theirs > 0]
        return (min(ratios), max(ratios)) if ratios else (0.0, 0.0)

    @property
    def reached(self) -> bool | None:
        """Whether any round reached the goal: a noisy machine makes all of them slower, a slow stage is so in each."""
        return None if self.goal is None else self.spread(self.goal.peer)[0] <= self.goal.most


class Throughput(_Model):
    schema_version: Literal[1] = 1
    profile: Slug
    data: dict[Slug, Line]
    """What was read for each task."""
    stages: tuple[Stage, ...]
    hardware: Hardware
    software: Software
    suite: SuiteVersion
    started: AwareDatetime
    finished: AwareDatetime

    @property
    def file_name(self) -> str:
        return f"throughput.{self.profile}.json"


def write_throughput(record: Throughput, directory: Path) -> Path:
    """Write it as `directory/<machine>/throughput.<profile>.json`; see `write_stored`."""
    return write_stored(record, directory / record.hardware.folder / record.file_name)


def read_throughput(path: Path) -> Throughput:
    """The record in a file.

    Raises:
        RecordError: no such file, too large, not JSON of this schema, an unknown or missing key, a value out of range.
    """
    return parse_stored(Throughput, read_bytes(path, what="record of throughput"), path=path)


Round = Annotated[tuple[Amount, ...], Field(min_length=1, max_length=1000)]


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


SCHEMAS: dict[str, type[BaseModel]] = {"throughput": Throughput, "speed": Speed}


def json_schema(kind: str) -> str:
    """The JSON Schema of a record of `throughput` or `speed`, as it is kept in the repository."""
    return schema_of(SCHEMAS[kind])


if __name__ == "__main__":
    print(json_schema(sys.argv[1]), end="")
