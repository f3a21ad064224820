"""Show how long each setup trained a task to the expected metric, across engines, precisions and divisions.

A setup is an engine with a precision, a number of processes and a division. `touchstone.comparing.compare` judges like
runs only. Setups round differently, and those of the open division use another recipe, so only their training times are
shown side by side: on one machine, on the same data, for runs that all reached the expected metric. Nothing is judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from touchstone.comparing.compare import mean_text, newest_by_seed, process_count, sample, shared_machine
from touchstone.comparing.difference import Sample
from touchstone.records.record import Record

Key = tuple[str, ...]
HEADINGS = ("task", "engine", "seeds", "expected metric", "training [s]", "of floor", "x first")


@dataclass(frozen=True)
class Setup:
    """Runs of one engine, precision, number of processes and division, one record per seed.

    Attributes:
        title: the parts that distinguish it from the other setups of the task.
        reason: why its time is not a time to the expected metric, or None if it is.
    """

    title: str
    records: tuple[Record, ...]
    reason: str | None

    @property
    def seconds(self) -> Sample:
        """Seconds of training."""
        return sample(self.records, "train seconds")

    @property
    def floor(self) -> Sample:
        """The floor as a percentage of the training time."""
        return sample(self.records, "of the floor")

    @property
    def metrics(self) -> dict[str, Sample]:
        """The metrics that the runs are judged by, or the main metric if they are not judged."""
        judged = {verdict.metric for record in self.records for verdict in record.verdicts}
        names = [q.name for i, q in enumerate(self.records[0].quality) if q.name in judged or (i == 0 and not judged)]
        found = [{q.name: q.value for q in record.quality} for record in self.records]
        return {name: Sample.of(values.get(name) for values in found) for name in names}


@dataclass(frozen=True)
class TaskTimes:
    """The setups of one task on one machine, with the same data: Trainer first, then the slowest first."""

    title: str
    machine: str
    setups: tuple[Setup, ...]

    def ratio(self, setup: Setup) -> float | None:
        """Return the speed-up over the first setup.

        It is None for a task with one setup, and if either setup has no time to the expected metric.
        """
        first = self.setups[0]
        if len(self.setups) == 1 or first.reason or setup.reason:
            return None
        if not (first.seconds.n and setup.seconds.n and setup.seconds.mean):
            return None
        return first.seconds.mean / setup.seconds.mean


def times_to_metric(records: Iterable[Record]) -> tuple[TaskTimes, ...]:
    """Group records of any machines and tasks into setups, by machine and task.

    Only the newest run of each seed is used, and only the newest recipe of each division.
    """
    groups: dict[Key, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.finished):
        groups.setdefault(_task(record), []).append(record)
    return tuple(
        TaskTimes(f"{name} · {profile}", machine, tuple(sorted(_setups(found), key=_order)))
        for (machine, name, profile, *_), found in sorted(groups.items())
    )


def _task(record: Record) -> Key:
    """Return what the setups of a task have in common: everything but the recipe."""
    spec = record.spec
    name = spec.name if spec.division == "closed" else spec.name.partition("+")[0]
    same = {part: spec.resolved.get(part) for part in ("task", "data", "checkpoint", "options", "overrides")}
    content = json.dumps(same, sort_keys=True)
    return (record.hardware.folder, name, spec.profile, record.dataset_fingerprint, content)


def _setups(records: Sequence[Record]) -> Iterator[Setup]:
    """Yield the setups of one task. `records` are ordered by time, newest last."""
    recipe = {_recipe(record): record.spec.hash for record in records}
    by_setup: dict[Key, list[Record]] = {}
    for record in records:
        if record.spec.hash == recipe[_recipe(record)]:
            several = (process_count(record),) if record.processes > 1 else ()
            key = (record.engine, record.precision, *several, *_recipe(record))
            by_setup.setdefault(key, []).append(record)
    for key, found in by_setup.items():
        runs = newest_by_seed(found)
        yield Setup(" · ".join(key), runs, _obstacle(runs))


def _recipe(record: Record) -> Key:
    """Return whose recipe a record used: () for the task's own, or the variant of the open division."""
    return () if record.spec.division == "closed" else (f"+{record.spec.name.partition('+')[2]} (open division)",)


def _order(setup: Setup) -> tuple[bool, bool, float]:
    record = setup.records[0]
    seconds = setup.seconds.mean if setup.seconds.n else 0.0
    return (record.engine != "trainer", record.precision != "fp32", -seconds)


def _obstacle(records: Sequence[Record]) -> str | None:
    """Return why these runs have no time to the expected metric, or None if they have."""
    if reason := shared_machine(records):
        return reason
    statuses = [{verdict.status for verdict in r.verdicts} or {"no-expectation"} for r in records]
    if any("no-expectation" in found for found in statuses):
        return "no expectation"
    missed = [r.seed for r, found in zip(records, statuses, strict=True) if found != {"as-expected"}]
    if not missed:
        return None
    return f"seed{'s' if len(missed) > 1 else ''} {', '.join(map(str, missed))} did not reach the expected metric"


def render_times(times: Sequence[TaskTimes], console: Console, *, markdown: bool = False) -> None:
    """Print one table for each machine, as Markdown if `markdown`."""
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
                for number, setup in enumerate(one.setups):
                    last = number == len(one.setups) - 1
                    table.add_row(*_cells(one, setup, first=number == 0), end_section=last and not markdown)
        console.print(table)


def _cells(task: TaskTimes, setup: Setup, *, first: bool) -> Iterator[Text]:
    yield Text(task.title if first else "")
    yield Text(setup.title)
    yield Text(str(len(setup.records)))
    yield Text(", ".join(f"{name} {mean_text(sample)}" for name, sample in setup.metrics.items()))
    yield Text(mean_text(setup.seconds))
    yield Text(f"{setup.floor.mean:.0f}%" if setup.floor.n else "-")
    ratio = task.ratio(setup)
    yield Text(setup.reason or ("-" if ratio is None else f"{ratio:.2f}"), style="dim" if setup.reason else "")
