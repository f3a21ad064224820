"""The record of one run: everything one needs to compare it with another, in one JSON file.

A record may come from a stranger: it is read as data, within bounds, and nothing in it is ever executed or used as a
path unless it has the form of a plain name. `python -m touchstone.records.record` prints the JSON Schema (kept in
`touchstone/records/record.schema.json`).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from touchstone.fields import Amount, Count, Line, Number, printable, shown
from touchstone.files import RecordError, parse_stored, read_bytes, schema_of, write_stored
from touchstone.records.efficiency import Efficiency
from touchstone.records.machine import Energy, Hardware, Software, SuiteVersion, suite_version
from touchstone.specs.fingerprint import measured_hash
from touchstone.specs.verdict import Verdict

if TYPE_CHECKING:  # reading a record needs no torch
    from touchstone.engines.training import Evaluation as EngineEvaluation
    from touchstone.engines.training import Point
    from touchstone.pipelines.pipeline import Score
if TYPE_CHECKING:  # reading a record needs no torch
    from touchstone.engines.training import TrainingRun
    from touchstone.specs.spec import Spec


# The figures of a run as a record keeps them: scores, losses, times, tokens, memory.


MAX_POINTS = 200
"""Points of a trajectory: more than a plot shows."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quality(_Model):
    """One metric with all that is needed to compare it with another."""

    name: Line
    value: Number
    n: Count
    higher_is_better: bool
    signature: Line
    lower: Number | None = None
    """What the metric can be at all; None where it has no end, and in records from before this was kept."""
    upper: Number | None = None

    @classmethod
    def of(cls, score: Score) -> Self:
        return cls(
            name=score.name,
            value=score.value,
            n=score.n,
            higher_is_better=score.higher_is_better,
            signature=score.signature,
            lower=score.lower,
            upper=score.upper,
        )


class TrajectoryPoint(_Model):
    step: Count
    samples: Count
    tokens: Count
    seconds: Amount
    loss: Number
    learning_rate: Amount


class Trajectory(_Model):
    """Training loss by step. `thinned`: only some of the `steps` are here, evenly spaced, first and last among them."""

    steps: Count
    thinned: bool
    points: Annotated[tuple[TrajectoryPoint, ...], Field(max_length=MAX_POINTS)]

    @classmethod
    def of(cls, points: Sequence[Point]) -> Self:
        n = len(points)
        chosen = range(n) if n <= MAX_POINTS else [i * (n - 1) // (MAX_POINTS - 1) for i in range(MAX_POINTS)]
        return cls(
            steps=points[-1].step if n else 0,
            thinned=n > MAX_POINTS,
            points=tuple(
                TrajectoryPoint(
                    step=p.step,
                    samples=p.samples,
                    tokens=p.tokens,
                    seconds=round(p.seconds, 4),
                    loss=p.loss,
                    learning_rate=p.learning_rate,
                )
                for p in (points[i] for i in chosen)
            ),
        )


class Evaluation(_Model):
    epoch: Amount
    step: Count
    seconds: Amount
    scores: tuple[Quality, ...]

    @classmethod
    def of(cls, evaluation: EngineEvaluation) -> Self:
        return cls(
            epoch=evaluation.epoch,
            step=evaluation.step,
            seconds=round(evaluation.seconds, 4),
            scores=tuple(Quality.of(score) for score in evaluation.scores),
        )


class StepSeconds(_Model):
    """The time of each optimizer step, in order, the first (warming up) among them; the summary is of the rest."""

    n: Count
    mean: Amount | None
    median: Amount | None
    p90: Amount | None
    sd: Amount | None
    first: Amount | None
    seconds: Annotated[tuple[Amount, ...], Field(max_length=1_000_000)]
    """Rounded to 0.1 ms."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        steady = list(seconds[1:])
        return cls(
            n=len(seconds),
            first=round(seconds[0], 6) if seconds else None,
            mean=round(statistics.fmean(steady), 6) if steady else None,
            median=round(statistics.median(steady), 6) if steady else None,
            p90=round(sorted(steady)[int(0.9 * (len(steady) - 1))], 6) if steady else None,
            sd=round(statistics.stdev(steady), 6) if len(steady) > 1 else None,
            seconds=tuple(round(second, 4) for second in seconds),
        )


class Tokens(_Model):
    """What training went through, over all epochs. Throughput is that of real tokens."""

    real: Count
    padded: Count


class Launch(_Model):
    """The processes that trained together. The record's tokens and energy are sums over them, its memory is that of the
    one that held most, each of its times that of the slowest.

    Attributes:
        launcher: the name of the command that started them; its arguments may name hosts and paths.
        host_bytes, device_bytes: each process's peak, in the order of the ranks.
    """

    launcher: Line
    processes: Annotated[int, Field(ge=1)]
    nodes: Annotated[int, Field(ge=1)]
    host_bytes: tuple[Count, ...]
    device_bytes: tuple[Count, ...] | None


class Memory(_Model):
    """Peaks of the run's process. `device_bytes` is None where there is no device beside the host."""

    host_bytes: Count
    device_bytes: Count | None


__all__ = [
    "Quality",
    "Record",
    "RecordError",
    "SuiteVersion",
    "json_schema",
    "make_record",
    "read_record",
    "read_records",
    "record_name",
    "suite_version",
    "write_record",
]

SCHEMA_VERSION: Literal[1] = 1
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+_-]*$", max_length=100)]
"""A name that may be part of a file name on any system."""
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class SpecEcho(_Model):
    """The spec as it was resolved, whole, so that a reader needs no other file."""

    name: Slug
    profile: Slug
    hash: Digest
    resolved: dict[str, JsonValue]

    @property
    def division(self) -> Literal["closed", "open"]:
        """Specs of before there were divisions do not say it: they are of the closed one."""
        return "open" if self.resolved.get("division") == "open" else "closed"

    @model_validator(mode="after")
    def _hash_is_that_of_the_spec(self) -> Self:
        if (found := measured_hash(self.resolved)) != self.hash:
            raise ValueError(f"the spec echoed here has hash {found}: hash or spec was changed after the run")
        return self


class Record(_Model):
    """One finished run."""

    schema_version: Literal[1]
    spec: SpecEcho
    dataset_fingerprint: Line
    seed: int
    engine: Slug
    implementation: Line
    precision: Slug
    quality: tuple[Quality, ...]
    """The main metric first."""
    before_training: tuple[Quality, ...]
    verdicts: tuple[Verdict, ...]
    trajectory: Trajectory
    evaluations: tuple[Evaluation, ...]
    phase_seconds: dict[str, Amount]
    steps: StepSeconds
    tokens: Tokens
    parameters: Count
    memory: Memory
    energy: Energy
    efficiency: Efficiency
    hardware: Hardware
    software: Software
    probes: dict[str, tuple[Line, ...]]
    suite: SuiteVersion
    started: AwareDatetime
    finished: AwareDatetime
    launch: Launch | None = None
    """None where one process trained, started by nobody but the suite."""

    @property
    def processes(self) -> int:
        """That trained together."""
        return 1 if self.launch is None else self.launch.processes

    @property
    def file_name(self) -> str:
        return record_name(
            self.spec.name, self.spec.profile, self.engine, self.precision, seed=self.seed, processes=self.processes
        )

    @property
    def seconds(self) -> float:
        """From opening the source to the record: what the run took, without waiting for a process."""
        return (self.finished - self.started).total_seconds()

    @property
    def tokens_per_second(self) -> float | None:
        """Real tokens a second of training."""
        seconds = self.phase_seconds.get("train", 0.0)
        return self.tokens.real / seconds if seconds > 0 else None

    @property
    def fraction_of_floor(self) -> float | None:
        """The least time that training could have taken here, as a fraction of the time that it took; None where it is
        not known."""
        floor = self.efficiency.floor
        return None if floor is None else floor.fraction


def record_name(spec: str, profile: str, engine: str, precision: str, *, seed: int, processes: int = 1) -> str:
    """Of the file that holds the record of such a run."""
    many = f".{processes}-processes" if processes > 1 else ""
    return f"{spec}.{profile}.{engine}.{precision}{many}.seed{seed}.json"


def make_record(
    spec: Spec,
    *,
    run: TrainingRun,
    seed: int,
    engine: str,
    implementation: str,
    precision: str,
    dataset_fingerprint: str,
    verdicts: Sequence[Verdict],
    energy: Energy,
    efficiency: Efficiency,
    hardware: Hardware,
    software: Software,
    suite: SuiteVersion,
    started: datetime,
    finished: datetime,
    launch: Launch | None = None,
) -> Record:
    """A record of a finished run: the last evaluation's scores are its quality, those at step 0 the ones before
    training.

    Raises:
        RecordError: the run was never evaluated.
    """
    if not run.evaluations:
        raise RecordError(f"{spec.name}, seed {seed}: the run was never evaluated, so there is nothing to record")
    first = run.evaluations[0]
    return Record(
        schema_version=SCHEMA_VERSION,
        spec=SpecEcho(name=spec.name, profile=spec.profile, hash=spec.hash, resolved=spec.resolved),
        dataset_fingerprint=dataset_fingerprint,
        seed=seed,
        engine=engine,
        implementation=implementation,
        precision=precision,
        quality=tuple(Quality.of(score) for score in run.evaluations[-1].scores),
        before_training=tuple(Quality.of(score) for score in first.scores) if first.step == 0 else (),
        verdicts=tuple(verdicts),
        trajectory=Trajectory.of(run.trajectory),
        evaluations=tuple(Evaluation.of(evaluation) for evaluation in run.evaluations),
        phase_seconds={phase: round(seconds, 4) for phase, seconds in run.phases.items()},
        steps=StepSeconds.of(run.step_seconds),
        tokens=Tokens(real=run.tokens, padded=run.padded_tokens),
        parameters=run.parameters,
        memory=Memory(host_bytes=run.peak_host_bytes, device_bytes=run.peak_device_bytes),
        energy=energy,
        efficiency=efficiency,
        hardware=hardware,
        software=software,
        probes={moment: tuple(printable(line) for line in lines) for moment, lines in run.sample_outputs.items()},
        suite=suite,
        started=started,
        finished=finished,
        launch=launch,
    )


def write_record(record: Record, directory: Path) -> Path:
    """Write it as `directory/<machine>/<name>.<profile>.<engine>.<precision>.seed<k>.json`, atomically.

    Raises:
        RecordError: it cannot be written (a full disk, a read-only folder). A record that was there is as it was.
    """
    return write_stored(record, directory / record.hardware.folder / record.file_name)


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        RecordError: no such file, too large, not JSON, another schema version, an unknown, missing or repeated key, a
            value out of range.
    """
    raw = read_bytes(path, what="record")
    try:
        data = json.loads(raw, parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeated)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: is not the JSON of a record: {error}") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"{path}: schema_version = {shown(version)}: this version of the suite reads {SCHEMA_VERSION}"
        )
    return parse_stored(Record, raw, path=path)


def read_records(place: Path) -> list[Record]:
    """All records below a directory, in the order of their paths; or the one record, if it is a file.

    Raises:
        RecordError: there are none, or one of them cannot be read.
    """
    if place.is_file():
        return [read_record(place)]
    if not place.is_dir():
        raise RecordError(f"{place}: no such file or folder: give a record or a folder of records")
    paths = sorted(path for path in place.rglob("*.seed*.json") if not path.name.startswith("."))
    if not paths:
        raise RecordError(f"{place}: no record (*.seed*.json) in it or below")
    return [read_record(path) for path in paths]


def json_schema() -> str:
    """The JSON Schema of a record, as it is kept in the repository."""
    return schema_of(Record)


def _refuse_constant(name: str) -> None:
    raise ValueError(f'{name} is not JSON: a record writes it as the string "{name}"')


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return found


if __name__ == "__main__":
    print(json_schema(), end="")
