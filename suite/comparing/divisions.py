"""How long the open division takes to what the closed one reaches: the one figure that stands across divisions.

Runs of the two have different recipes, and so different hashes: what they end in and what they cost is never judged
against each other. What may be set side by side is the time that training took on one machine, where every run of both
ended as its expectation asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from suite.comparing.comparison import TimeToMetric
from suite.comparing.difference import Sample
from suite.records.record import Record
from suite.records.software import runs_alone

Key = tuple[str, ...]


def times_to_metric(records: Iterable[Record]) -> tuple[TimeToMetric, ...]:
    """One for every open spec whose closed one the records hold too: on the same data and machine, by the same engine.

    Of several runs of one seed the newest counts.
    """
    groups: dict[Key, dict[int, Record]] = {}
    for record in sorted(records, key=lambda r: r.finished):
        groups.setdefault(_key(record), {})[record.seed] = record
    return tuple(_times(groups))


def _times(groups: dict[Key, dict[int, Record]]) -> Iterator[TimeToMetric]:
    for key, found in sorted(groups.items()):
        runs = list(found.values())
        if runs[0].spec.division == "closed":
            continue
        main = runs[0].spec.name.partition("+")[0]
        closed = [
            list(other.values())
            for (name, _, *rest), other in groups.items()
            if name == main and rest == list(key[2:]) and _same_task(next(iter(other.values())), runs[0])
        ]
        if not closed:
            continue
        newest = max(closed, key=lambda group: group[-1].finished)  # its recipe may have been another once
        sides = (newest, runs)
        title = " · ".join((runs[0].spec.name, *(part for part in key[2:-1] if part != "1 process")))
        yield TimeToMetric(title, _seconds(newest), _seconds(runs), next(filter(None, map(_obstacle, sides)), None))


def _key(record: Record) -> Key:
    """Name and hash first, then what both divisions must share."""
    processes = f"{record.processes} process{'es' if record.processes > 1 else ''}"
    shared = (record.spec.profile, record.hardware.folder, record.engine, record.precision, processes)
    return (record.spec.name, record.spec.hash, *shared, record.dataset_fingerprint)


def _same_task(closed: Record, other: Record) -> bool:
    """Whether all but the recipe is the same."""
    parts = ("task", "data", "checkpoint", "options", "overrides")
    return closed.spec.division == "closed" and all(
        closed.spec.resolved.get(part) == other.spec.resolved.get(part) for part in parts
    )


def _obstacle(records: Sequence[Record]) -> str | None:
    """Why the times of these runs say nothing, or None."""
    if any(not runs_alone(r.software.environment) for r in records):
        return "runs beside others of their session (pytest -n)"
    missed = [r.seed for r in records if not r.verdicts or any(v.status != "as-expected" for v in r.verdicts)]
    if not missed:
        return None
    seeds = f"seed{'s' if len(missed) > 1 else ''} {', '.join(map(str, missed))}"
    return f"{seeds} of the {records[0].spec.division} division did not end as expected"


def _seconds(records: Sequence[Record]) -> Sample:
    return Sample(tuple(record.phase_seconds["train"] for record in records if "train" in record.phase_seconds))
