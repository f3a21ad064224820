"""What is asked of the runs that a table sets side by side: which of them count, and their figures, one a seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from suite.comparing.difference import Sample
from suite.records.record import Record
from suite.records.software import runs_alone

Figure = Literal["train seconds", "tokens/s", "of the floor", "peak host memory", "peak device memory", "energy"]


def newest_by_seed(records: Iterable[Record]) -> tuple[Record, ...]:
    """Of several runs of one seed the newest, in the order of their seeds."""
    newest = {record.seed: record for record in sorted(records, key=lambda r: r.finished)}
    return tuple(newest[seed] for seed in sorted(newest))


def beside_others(records: Iterable[Record]) -> str | None:
    """Why what these runs cost says nothing; None where each had the machine to itself."""
    alone = all(runs_alone(record.software.environment) for record in records)
    return None if alone else "runs beside others of their session (pytest -n)"


def counted(record: Record) -> str:
    return f"{record.processes} process{'es' if record.processes > 1 else ''}"


def sample(records: Sequence[Record], figure: Figure) -> Sample:
    """Seconds, tokens a second, percent, MiB, joules."""
    return Sample.of(_figure(record, figure) for record in records)


def _figure(record: Record, figure: Figure) -> float | None:
    match figure:
        case "train seconds":
            return record.phase_seconds.get("train")
        case "tokens/s":
            return record.tokens_per_second
        case "of the floor":
            return None if record.fraction_of_floor is None else 100 * record.fraction_of_floor
        case "peak host memory":
            return record.memory.host_bytes / 2**20
        case "peak device memory":
            return None if record.memory.device_bytes is None else record.memory.device_bytes / 2**20
        case "energy":
            return record.energy.joules
