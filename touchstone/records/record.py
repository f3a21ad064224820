"""The record of one run: everything needed to compare it with another run, in one JSON file.

`Record.of` makes a record from a `Finished` run, `write_record` and `read_record` store and load it. A record may come
from a stranger: it is read as data, within bounds. Nothing in it is executed, and nothing becomes part of a path unless
it has the form of a plain name. Reading one needs no torch.

`python -m touchstone.records.record` prints the JSON Schema (kept in `touchstone/records/record.schema.json`).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, JsonValue, model_validator
from typing_extensions import Self

from touchstone.fields import Amount, Count, Digest, FrozenModel, Line, Number, Positive, Slug, printable, shown
from touchstone.files import RecordError, parse_json, read_bytes, schema_of, write_json
from touchstone.records.efficiency import Efficiency
from touchstone.records.energy import Energy
from touchstone.records.machine import Hardware, Software, SuiteVersion
from touchstone.specs import measured_hash
from touchstone.specs.verdict import Verdict

if TYPE_CHECKING:  # these import torch
    from touchstone.engines.training import Evaluation as EngineEvaluation
    from touchstone.engines.training import Execution, Point, TrainingRun
    from touchstone.specs.spec import Spec

__all__ = [
    "Finished",
    "Launch",
    "Quality",
    "Record",
    "RecordError",
    "json_schema",
    "read_record",
    "read_records",
    "record_name",
    "write_record",
]

SCHEMA_VERSION: Literal[1] = 1
MAX_POINTS = 200
"""The largest number of points in a trajectory: enough for a plot."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished run with everything that was measured around it, from which `Record.of` makes the record.

    Attributes:
        run: the result of the engine.
        dataset_fingerprint: a hash of the rows that were read.
        verdicts: the judgements of the asserted metrics, in the spec's order.
        launch: how several processes were started; None for a run in a single process.
        started: when the process began to open the source.
        finished: when everything was measured.
    """

    spec: Spec
    engine: str
    execution: Execution
    run: TrainingRun
    dataset_fingerprint: str
    verdicts: Sequence[Verdict]
    energy: Energy
    efficiency: Efficiency
    hardware: Hardware
    software: Software
    suite: SuiteVersion
    started: datetime
    finished: datetime
    implementation: str = "reference"
    launch: Launch | None = None


class Quality(FrozenModel):
    """The score of one metric, with all that is needed to compare it with another.

    Attributes:
        n: the number of items that the value is computed over.
        signature: names everything that makes two values of this metric comparable.
        lower, upper: the range of the metric; None for an open end, and in records from before the range was kept.
    """

    name: Line
    value: Number
    n: Count
    higher_is_better: bool
    signature: Line
    lower: Number | None = None
    upper: Number | None = None


class Evaluation(FrozenModel):
    """The scores on the validation split after a number of steps. Epoch 0 is before training."""

    epoch: Amount
    step: Count
    seconds: Amount
    scores: tuple[Quality, ...]

    @classmethod
    def of(cls, evaluation: EngineEvaluation) -> Self:
        rounded = replace(evaluation, seconds=round(evaluation.seconds, 4))
        return cls.model_validate(rounded, from_attributes=True)


class TrajectoryPoint(FrozenModel):
    """One optimizer step: totals since the start, seconds of training alone, the mean loss of the step's items."""

    step: Count
    samples: Count
    tokens: Count
    seconds: Amount
    loss: Number
    learning_rate: Amount


class Trajectory(FrozenModel):
    """Training loss by step. If `thinned`, only some of the `steps` are kept, evenly spaced from first to last."""

    steps: Count
    thinned: bool
    points: Annotated[tuple[TrajectoryPoint, ...], Field(max_length=MAX_POINTS)]

    @classmethod
    def of(cls, points: Sequence[Point]) -> Self:
        n = len(points)
        kept = range(n) if n <= MAX_POINTS else [i * (n - 1) // (MAX_POINTS - 1) for i in range(MAX_POINTS)]
        rounded = [replace(points[i], seconds=round(points[i].seconds, 4)) for i in kept]
        return cls(
            steps=points[-1].step if n else 0,
            thinned=n > MAX_POINTS,
            points=tuple(TrajectoryPoint.model_validate(point, from_attributes=True) for point in rounded),
        )


class StepSeconds(FrozenModel):
    """The time of each optimizer step in order, rounded to 0.1 ms. The summary leaves out the first, a warm-up."""

    n: Count
    mean: Amount | None
    median: Amount | None
    p90: Amount | None
    sd: Amount | None
    first: Amount | None
    seconds: Annotated[tuple[Amount, ...], Field(max_length=1_000_000)]

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


class Tokens(FrozenModel):
    """The tokens of training, over all epochs. Throughput is computed from real tokens."""

    real: Count
    padded: Count


class Launch(FrozenModel):
    """The processes that trained together.

    The record's tokens and energy are sums over them, its memory is the maximum, and its times are those of the slowest
    process.

    Attributes:
        launcher: the name of the command that started them. Its arguments are left out: they may name hosts and paths.
        host_bytes, device_bytes: the peak memory of each process, by rank.
    """

    launcher: Line
    processes: Positive
    nodes: Positive
    host_bytes: tuple[Count, ...]
    device_bytes: tuple[Count, ...] | None


class Memory(FrozenModel):
    """The peak memory of the run's process. `device_bytes` is None for a run on the CPU."""

    host_bytes: Count
    device_bytes: Count | None


class SpecEcho(FrozenModel):
    """A copy of the whole resolved spec, so that a reader needs no other file."""

    name: Slug
    profile: Slug
    hash: Digest
    resolved: dict[str, JsonValue]

    @property
    def division(self) -> Literal["closed", "open"]:
        """The spec's division. Specs from before divisions existed are closed."""
        return "open" if self.resolved.get("division") == "open" else "closed"

    @model_validator(mode="after")
    def _check_hash(self) -> Self:
        if (found := measured_hash(self.resolved)) != self.hash:
            raise ValueError(f"the spec in this record has hash {found}: hash or spec was changed after the run")
        return self


class Record(FrozenModel):
    """The record of one finished run.

    Attributes:
        quality: the scores after training, the main metric first.
        before_training: the scores before training; empty if there was no such evaluation.
        sample_outputs: texts that the model produced before and after training (`probes` in JSON).
        launch: None for a run in a single process.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    schema_version: Literal[1]
    spec: SpecEcho
    dataset_fingerprint: Line
    seed: int
    engine: Slug
    implementation: Line
    precision: Slug
    quality: tuple[Quality, ...]
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
    sample_outputs: dict[str, tuple[Line, ...]] = Field(alias="probes")
    suite: SuiteVersion
    started: AwareDatetime
    finished: AwareDatetime
    launch: Launch | None = None

    @classmethod
    def of(cls, finished: Finished) -> Self:
        """Make the record of a finished run.

        Raises:
            RecordError: the run was never evaluated.
        """
        spec, run, execution = finished.spec, finished.run, finished.execution
        evaluations = tuple(Evaluation.of(evaluation) for evaluation in run.evaluations)
        if not evaluations:
            raise RecordError(f"{spec.name}, seed {execution.seed}: the run was never evaluated, so it has no record")
        return cls(
            schema_version=SCHEMA_VERSION,
            spec=SpecEcho(name=spec.name, profile=spec.profile, hash=spec.hash, resolved=spec.resolved),
            dataset_fingerprint=finished.dataset_fingerprint,
            seed=execution.seed,
            engine=finished.engine,
            implementation=finished.implementation,
            precision=execution.precision,
            quality=evaluations[-1].scores,
            before_training=evaluations[0].scores if evaluations[0].step == 0 else (),
            verdicts=tuple(finished.verdicts),
            trajectory=Trajectory.of(run.trajectory),
            evaluations=evaluations,
            phase_seconds={phase: round(seconds, 4) for phase, seconds in run.phases.items()},
            steps=StepSeconds.of(run.step_seconds),
            tokens=Tokens(real=run.tokens, padded=run.padded_tokens),
            parameters=run.parameters,
            memory=Memory(host_bytes=run.peak_host_bytes, device_bytes=run.peak_device_bytes),
            energy=finished.energy,
            efficiency=finished.efficiency,
            hardware=finished.hardware,
            software=finished.software,
            probes={moment: tuple(map(printable, lines)) for moment, lines in run.sample_outputs.items()},
            suite=finished.suite,
            started=finished.started,
            finished=finished.finished,
            launch=finished.launch,
        )

    @property
    def processes(self) -> int:
        """The number of processes that trained together."""
        return 1 if self.launch is None else self.launch.processes

    @property
    def file_name(self) -> str:
        """The name of the file that holds this record."""
        return record_name(
            self.spec.name, self.spec.profile, self.engine, self.precision, seed=self.seed, processes=self.processes
        )

    @property
    def seconds(self) -> float:
        """The time of the run, from opening the source to the record."""
        return (self.finished - self.started).total_seconds()

    @property
    def tokens_per_second(self) -> float | None:
        """Real tokens per second of training."""
        seconds = self.phase_seconds.get("train", 0.0)
        return self.tokens.real / seconds if seconds > 0 else None

    @property
    def fraction_of_floor(self) -> float | None:
        """The floor as a fraction of the training time; None if it is not known."""
        floor = self.efficiency.floor
        return None if floor is None else floor.fraction


def record_name(spec: str, profile: str, engine: str, precision: str, *, seed: int, processes: int = 1) -> str:
    """Return the name of the file that holds the record of such a run."""
    many = f".{processes}-processes" if processes > 1 else ""
    return f"{spec}.{profile}.{engine}.{precision}{many}.seed{seed}.json"


def write_record(record: Record, directory: Path) -> Path:
    """Write a record to `directory/<machine>/<name>.<profile>.<engine>.<precision>.seed<k>.json`, atomically.

    Raises:
        RecordError: it cannot be written (a full disk, a read-only folder). A record that was there is unchanged.
    """
    return write_json(record, directory / record.hardware.folder / record.file_name)


def read_record(path: Path) -> Record:
    """Read the record in a file.

    Raises:
        RecordError: no such file, too large, not JSON, another schema version, an unknown, missing or repeated key, a
            value out of range.
    """
    raw = read_bytes(path, kind="record")
    try:
        data = json.loads(raw, parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeated)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: is not the JSON of a record: {error}") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"{path}: schema_version = {shown(version)}: this version of the suite reads {SCHEMA_VERSION}"
        )
    return parse_json(Record, raw, path=path)


def read_records(place: Path) -> list[Record]:
    """Read all records below a folder, in the order of their paths, or the one record in a file.

    Raises:
        RecordError: there is no record, or one of them cannot be read.
    """
    if place.is_file():
        return [read_record(place)]
    if not place.is_dir():
        raise RecordError(f"{place}: no such file or folder: give a record or a folder of records")
    paths = sorted(path for path in place.rglob("*.seed*.json") if not path.name.startswith("."))
    if not paths:
        raise RecordError(f"{place}: contains no record (*.seed*.json)")
    return [read_record(path) for path in paths]


def json_schema() -> str:
    """Return the JSON Schema of a record, as the repository keeps it."""
    return schema_of(Record)


def _refuse_constant(name: str) -> None:
    raise ValueError(f'{name} is not JSON: a record has the string "{name}" instead')


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return found


if __name__ == "__main__":
    print(json_schema(), end="")
