"""How long each way to train a task takes to the expected metric: the one figure that stands across engines, precisions
and divisions.

`compare` judges like against like. Ways differ in how they round, and those of the open division in their recipe: what
may be set side by side is the time that training took on one machine, on the same data, where every run ended as its
expectation asks for. Nothing is judged by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from touchstone.comparing.compare import beside_others, counted, newest_by_seed, sample, shown
from touchstone.comparing.difference import Sample
from touchstone.records.record import Record

Key = tuple[str, ...]
HEADINGS = ("task", "engine", "seeds", "expected metric", "training [s]", "of floor", "x first")


@dataclass(frozen=True)
class Way:
    """Runs of one engine, precision, number of processes and division: one record a seed.

    Attributes:
        title: what tells it from others.
        reason: why its time is none to the expected metric, or None.
    """

    title: str
    records: tuple[Record, ...]
    reason: str | None

    @property
    def seconds(self) -> Sample:
        """Of training."""
        return sample(self.records, "train seconds")

    @property
    def floor(self) -> Sample:
        """The fraction of it, in percent."""
        return sample(self.records, "of the floor")

    @property
    def metrics(self) -> dict[str, Sample]:
        """Those that the runs are judged by; the main one where they are judged by none."""
        judged = {verdict.metric for record in self.records for verdict in record.verdicts}
        names = [q.name for i, q in enumerate(self.records[0].quality) if q.name in judged or (i == 0 and not judged)]
        found = [{q.name: q.value for q in record.quality} for record in self.records]
        return {name: Sample.of(values.get(name) for values in found) for name in names}


@dataclass(frozen=True)
class TaskTimes:
    """The ways in which a task was trained on a machine, on the same data: Trainer first, then the slowest first."""

    title: str
    machine: str
    ways: tuple[Way, ...]

    def ratio(self, way: Way) -> float | None:
        """How many times as fast as the first way; None where either has no time to the expected metric, or there is no
        other."""
        first = self.ways[0]
        if (
            len(self.ways) == 1
            or first.reason
            or way.reason
            or not (first.seconds.n and way.seconds.n and way.seconds.mean)
        ):
            return None
        return first.seconds.mean / way.seconds.mean


def times_to_metric(records: Iterable[Record]) -> tuple[TaskTimes, ...]:
    """By machine and task. Of several runs of one seed the newest counts, of several recipes of a division the newest.

    Args:
        records: of any machines and tasks.
    """
    groups: dict[Key, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.finished):
        groups.setdefault(_task(record), []).append(record)
    return tuple(
        TaskTimes(f"{name} · {profile}", machine, tuple(sorted(_ways(found), key=_order)))
        for (machine, name, profile, *_), found in sorted(groups.items())
    )


def _task(record: Record) -> Key:
    """What ways share: all but the recipe."""
    spec = record.spec
    name = spec.name if spec.division == "closed" else spec.name.partition("+")[0]
    same = {part: spec.resolved.get(part) for part in ("task", "data", "checkpoint", "options", "overrides")}
    content = json.dumps(same, sort_keys=True)
    return (record.hardware.folder, name, spec.profile, record.dataset_fingerprint, content)


def _ways(records: Sequence[Record]) -> Iterator[Way]:
    """Of one task; `records`: the newest last."""
    recipe = {_recipe(record): record.spec.hash for record in records}
    by_way: dict[Key, list[Record]] = {}
    for record in records:
        if record.spec.hash == recipe[_recipe(record)]:
            several = (counted(record),) if record.processes > 1 else ()
            way = (record.engine, record.precision, *several, *_recipe(record))
            by_way.setdefault(way, []).append(record)
    for way, found in by_way.items():
        runs = newest_by_seed(found)
        yield Way(" · ".join(way), runs, _obstacle(runs))


def _recipe(record: Record) -> Key:
    """Whose recipe it is: the task's own, or that of which variant of the open division."""
    return () if record.spec.division == "closed" else (f"+{record.spec.name.partition('+')[2]} (open division)",)


def _order(way: Way) -> tuple[bool, bool, float]:
    record = way.records[0]
    seconds = way.seconds.mean if way.seconds.n else 0.0
    return (record.engine != "trainer", record.precision != "fp32", -seconds)


def _obstacle(records: Sequence[Record]) -> str | None:
    """Why the times of these runs say nothing, or None."""
    if reason := beside_others(records):
        return reason
    statuses = [{verdict.status for verdict in r.verdicts} or {"no-expectation"} for r in records]
    if any("no-expectation" in found for found in statuses):
        return "nothing was expected"
    missed = [r.seed for r, found in zip(records, statuses, strict=True) if found != {"as-expected"}]
    if not missed:
        return None
    return f"seed{'s' if len(missed) > 1 else ''} {', '.join(map(str, missed))} did not end as expected"


def render_times(times: Sequence[TaskTimes], console: Console, *, markdown: bool = False) -> None:
    """A table a machine.

    Args:
        markdown: as Markdown's tables are written.
    """
    for machine in dict.fromkeys(one.machine for one in times):
        table = Table(
            title=f"Time to the expected metric, {machine}",
            title_justify="left",
            header_style="bold",
            box=box.MARKDOWN if markdown else box.HEAVY_HEAD,
        )
        for heading in HEADINGS:
            right = heading in ("seeds", "training [s]", "of floor", "x first")
            table.add_column(Text(heading), justify="right" if right else "left", overflow="fold")
        for one in times:
            if one.machine == machine:
                for number, way in enumerate(one.ways):
                    last = number == len(one.ways) - 1
                    table.add_row(*_cells(one, way, first=number == 0), end_section=last and not markdown)
        console.print(table)


def _cells(task: TaskTimes, way: Way, *, first: bool) -> Iterator[Text]:
    yield Text(task.title if first else "")
    yield Text(way.title)
    yield Text(str(len(way.records)))
    yield Text(", ".join(f"{name} {shown(sample)}" for name, sample in way.metrics.items()))
    yield Text(shown(way.seconds))
    yield Text(f"{way.floor.mean:.0f}%" if way.floor.n else "-")
    ratio = task.ratio(way)
    yield Text(way.reason or ("-" if ratio is None else f"{ratio:.2f}"), style="dim" if way.reason else "")
