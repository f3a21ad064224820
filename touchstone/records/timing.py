"""Records of timings: how fast the stages are (`Throughput`), the engines train (`Speed`) and audits are (`Audits`).

Each is one JSON file for a profile and a machine. It keeps raw timings, from which everything else is computed.
Competitors were timed in turn: round i of all of them ran consecutively.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field, model_validator
from typing_extensions import Self

from touchstone.fields import Amount, Count, Digest, FrozenModel, Line, Positive, Slug
from touchstone.files import parse_json, read_bytes, write_json
from touchstone.records.machine import Hardware, Software, SuiteVersion

Peer = Literal["tokenizer", "course", "library", "copy"]
"""Peers that a stage is compared with: the bare tokenizer on the same text, the course's way to the same result, the
installed libraries, and a copy of the result's bytes."""
Seconds = Annotated[tuple[Amount, ...], Field(min_length=1, max_length=1000)]


class TimedRecord(FrozenModel):
    """The common part of both records. `kind` is the first part of the file name."""

    kind: ClassVar[str]

    schema_version: Literal[1] = 1
    profile: Slug
    hardware: Hardware
    software: Software
    suite: SuiteVersion
    started: AwareDatetime
    finished: AwareDatetime

    @property
    def file_name(self) -> str:
        return f"{self.kind}.{self.profile}.json"

    def write(self, directory: Path) -> Path:
        """Write the record to `directory/<machine>/<kind>.<profile>.json`, atomically.

        Raises:
            RecordError: it cannot be written. A record that was there is unchanged.
        """
        return write_json(self, directory / self.hardware.folder / self.file_name)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the record in a file.

        Raises:
            RecordError: no such file, too large, not JSON of this schema, an unknown or missing key, a value out of
                range.
        """
        return parse_json(cls, read_bytes(path, kind=f"record of {cls.kind}"), path=path)


class Rounds(FrozenModel):
    """Several timings of one competitor. `tokens` is the number of tokens in one round, fewer for slow peers."""

    what: Line
    tokens: Positive
    seconds: Seconds

    @property
    def ns_per_token(self) -> float:
        """Nanoseconds per token in the median round."""
        return statistics.median(self.seconds) / self.tokens * 1e9


class Growth(FrozenModel):
    """A stage on one of several sizes of the same data.

    Attributes:
        copy_seconds: rounds of copying the same number of int64, in turn with the stage. Memory that comes fresh from
            the system takes longer.
        peak_bytes: the largest amount that Python and NumPy allocated, without the input.
    """

    tokens: Positive
    seconds: Seconds
    copy_seconds: Seconds
    peak_bytes: Count

    @property
    def ns_per_token(self) -> float:
        """Nanoseconds per token in the best round, which other processes disturbed least."""
        return min(self.seconds) / self.tokens * 1e9

    @property
    def copies(self) -> float:
        """The stage's time in multiples of the time to copy the same number of int64."""
        return min(self.seconds) / max(min(self.copy_seconds), 1e-9)

    @property
    def bytes_per_token(self) -> float:
        return self.peak_bytes / self.tokens


class Goal(FrozenModel):
    """A stage should take at most `most` times as long as a peer for the same number of tokens."""

    peer: Peer
    most: Amount


class Stage(FrozenModel):
    """The timings of one stage and its peers. Each round ran all peers and then the stage."""

    name: Slug
    ours: Rounds
    peers: dict[Peer, Rounds]
    goal: Goal | None
    growth: tuple[Growth, ...]

    def ratio(self, peer: Peer) -> float:
        """Return the stage's median time per token relative to the peer's: below 1 is faster."""
        return self.ours.ns_per_token / self.peers[peer].ns_per_token

    def spread(self, peer: Peer) -> tuple[float, float]:
        """Return the smallest and the largest ratio of two consecutive rounds."""
        other = self.peers[peer]
        pairs = zip(self.ours.seconds, other.seconds, strict=True)
        scale = other.tokens / self.ours.tokens
        ratios = [mine * scale / theirs for mine, theirs in pairs if theirs > 0]
        return (min(ratios), max(ratios)) if ratios else (0.0, 0.0)

    @property
    def reached(self) -> bool | None:
        """True if any round reached the goal: noise makes some rounds slower, a slow stage is slow in every round."""
        return None if self.goal is None else self.spread(self.goal.peer)[0] <= self.goal.most


class Throughput(TimedRecord):
    """How fast the stages are on one machine. `data` describes what was read for each task."""

    kind: ClassVar[str] = "throughput"

    data: dict[Slug, Line]
    stages: tuple[Stage, ...]


class Steps(FrozenModel):
    """The timings of an engine's steps.

    Attributes:
        rounds: the seconds of each step, by round.
        samples, tokens: the average numbers of examples and real tokens in a step.
        floor_seconds: the floor of a step; see docs/speed.md.
    """

    engine: Slug
    precision: Slug
    rounds: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=100)]
    samples: Amount
    tokens: Amount
    floor_seconds: Amount | None

    @property
    def seconds(self) -> float:
        """The seconds of the median step, over all rounds."""
        return statistics.median(second for each in self.rounds for second in each)

    @property
    def fraction_of_floor(self) -> float | None:
        """The floor as a fraction of the median step."""
        return None if self.floor_seconds is None else self.floor_seconds / self.seconds

    def ratio(self, first: Steps) -> float:
        """Return the speed-up over the first engine."""
        return first.seconds / self.seconds

    def spread(self, first: Steps) -> tuple[float, float]:
        """Return the smallest and the largest speed-up in two consecutive rounds."""
        pairs = zip(first.rounds, self.rounds, strict=True)
        ratios = [statistics.median(other) / max(statistics.median(own), 1e-9) for other, own in pairs]
        return min(ratios), max(ratios)


class TaskSpeed(FrozenModel):
    """The timings of one task. Others are compared with the first engine.

    Attributes:
        steps_in_all: the steps of the whole recipe, which is the same for all engines. Multiplied by the seconds of a
            step, it is the time to train.
        evaluation: timings of evaluating some validation examples, all of them in one step. The first is Trainer's own
            evaluation.
    """

    task: Slug
    spec_hash: Digest
    steps_in_all: Positive
    engines: Annotated[tuple[Steps, ...], Field(min_length=1, max_length=20)]
    evaluation: Annotated[tuple[Steps, ...], Field(max_length=20)] = ()

    @model_validator(mode="after")
    def _check_rounds(self) -> Self:
        for competitors in (self.engines, self.evaluation):
            if len({len(steps.rounds) for steps in competitors}) > 1:
                raise ValueError("the engines have different numbers of rounds, so they were not timed in turn")
        return self


class Speed(TimedRecord):
    """How fast the engines train on one machine."""

    kind: ClassVar[str] = "speed"

    tasks: tuple[TaskSpeed, ...]


class AuditTime(FrozenModel):
    """The time of an audit. Each round took one training step of the same model and then audited it.

    Attributes:
        probes: the number of probes that could judge.
        most: the goal, in seconds.
    """

    budget: Slug
    probes: Count
    seconds: Seconds
    step_seconds: Seconds
    most: Amount

    @property
    def steps(self) -> float:
        """Return the median audit in units of the median training step."""
        return statistics.median(self.seconds) / statistics.median(self.step_seconds)

    @property
    def reached(self) -> bool:
        """True if any round reached the goal."""
        return min(self.seconds) <= self.most


class WatchTime(FrozenModel):
    """The CPU time of a training loop with `touchstone.watch`, in turns with the same loop without it.

    Attributes:
        steps: the optimizer steps of the loop, of which the first few are watched.
        most: the goal: the most that `seconds` should be, as a multiple of `plain_seconds`.
    """

    steps: Positive
    seconds: Seconds
    plain_seconds: Seconds
    most: Amount

    @property
    def ratios(self) -> list[float]:
        """Return the time with `watch` as a multiple of that without, by round."""
        return [ours / other for ours, other in zip(self.seconds, self.plain_seconds, strict=True)]

    @property
    def reached(self) -> bool:
        """True if any round reached the goal."""
        return min(self.ratios) <= self.most


class Audits(TimedRecord):
    """How fast audits are on one machine, and what `touchstone.watch` costs."""

    kind: ClassVar[str] = "audit"

    audits: Annotated[tuple[AuditTime, ...], Field(min_length=1, max_length=3)]
    watch: WatchTime
