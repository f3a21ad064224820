"""How fast the stages are on one machine: all rounds of all that was timed, in one JSON file a profile.

Raw figures are kept and everything else is computed from them. `python -m suite.records.throughput` prints the JSON
Schema (kept in `suite/records/throughput.schema.json`).
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from suite.numbers import Amount, Count
from suite.records.hardware import Hardware, Software
from suite.records.record import Slug
from suite.records.stored import parse_stored, read_bytes, schema_of, write_stored
from suite.records.version import SuiteVersion
from suite.text import Line

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


def json_schema() -> str:
    """The JSON Schema of such a record, as it is kept in the repository."""
    return schema_of(Throughput)


if __name__ == "__main__":
    print(json_schema(), end="")
