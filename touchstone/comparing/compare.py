"""Records of two machines, two commits or two engines side by side: ratios, verdicts, and what cannot be compared and
why.

Only like is compared with like: the same spec by its hash, the same data by its fingerprint, the same precision, and
(unless engines are what is compared) the same engine. Runs of different numbers of processes are judged by their
quality; their costs are shown beside the numbers. The open division is compared with itself alone (what stands across
engines, precisions and divisions are `touchstone.comparing.times`). `touchstone.comparing.difference` says when a
difference counts. The sides are called A and B; B is judged against A.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from touchstone.comparing.difference import Difference, Sample, cost_difference, quality_difference
from touchstone.records.machine import runs_alone
from touchstone.records.record import Quality, Record, RecordError

# What is asked of the runs that a table sets side by side: which of them count, and their figures, one a seed.


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


# What a comparison found, and how it is shown.


LEGEND = (
    "A value is the mean ± standard deviation over seeds. B is worse or better where p < 0.01 (Welch's t-test) and "
    "the change is more than 5 % (of a metric: more than its spread over seeds) and more than the runs' own spread."
)
ExitCode = Literal[0, 1, 2, 3]
MEANING = {
    0: "B is nowhere significantly worse than A",
    1: "B is significantly worse than A",
    2: "nothing can be compared, or something was measured otherwise",
    3: "a counterpart is missing",
}


@dataclass(frozen=True)
class Row:
    """One measure of a pair. `difference` is None where it only shows another one from its other side (tokens/s and
    time).
    """

    measure: str
    unit: str
    a: Sample
    b: Sample
    difference: Difference | None


@dataclass(frozen=True)
class Pair:
    """Runs that can be compared, one record a seed on each side."""

    title: str
    sides: tuple[str, str]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """What differs between the sides beside the result: software, flags, environment; what was left out."""


@dataclass(frozen=True)
class Unpaired:
    """Runs that cannot be compared. `missing`: the other side has none of them at all."""

    title: str
    reason: str
    missing: bool


@dataclass(frozen=True)
class Comparison:
    names: tuple[str, str]
    pairs: tuple[Pair, ...]
    unpaired: tuple[Unpaired, ...]

    @property
    def tested(self) -> bool:
        """Whether anything came to a verdict."""
        outcomes = {row.difference.outcome for pair in self.pairs for row in pair.rows if row.difference}
        return bool(outcomes - {"no verdict"})

    @property
    def exit_code(self) -> ExitCode:
        """0 same or better, 1 a significant regression, 2 nothing comparable or measured otherwise, 3 missing
        counterparts.
        """
        if any(row.difference and row.difference.outcome == "worse" for pair in self.pairs for row in pair.rows):
            return 1
        if not self.pairs or any(not one.missing for one in self.unpaired):
            return 2
        return 3 if self.unpaired else 0


def render(comparison: Comparison, console: Console) -> None:
    """Show it: a table a pair, what could not be compared, and what the exit code says."""
    console.print(Text.assemble("A = ", comparison.names[0], ", B = ", comparison.names[1]))
    for pair in comparison.pairs:
        table = Table(title=escape(pair.title), title_justify="left", header_style="bold")
        for heading in ("", f"A: {pair.sides[0]}", f"B: {pair.sides[1]}", "B / A", "B is", "because"):
            table.add_column(
                escape(heading), justify="left" if heading in ("", "B is", "because") else "right", overflow="fold"
            )
        for row in pair.rows:
            table.add_row(*_cells(row))
        console.print(table)
        for note in pair.notes:
            console.print(Text(f"  {note}", style="dim"))
    if comparison.unpaired:
        console.print(Text("Not compared", style="bold"))
        for one in comparison.unpaired:
            console.print(Text(f"  {one.title}: {one.reason}"))
    console.print(Text(LEGEND, style="dim"))
    code, meaning = comparison.exit_code, MEANING[comparison.exit_code]
    if code == 0 and not comparison.tested:
        meaning = "nothing could be tested: give at least two seeds a side"
    console.print(Text(f"{meaning} (exit code {code})", style="bold red" if code == 1 else "bold"))


STYLES = {"worse": "red", "better": "green", "same": "", "no verdict": "dim"}


def _cells(row: Row) -> tuple[str | Text, ...]:
    difference = row.difference
    ratio = difference.ratio if difference else row.b.mean / row.a.mean if row.a.n and row.b.n and row.a.mean else None
    return (
        Text(f"{row.measure} [{row.unit}]" if row.unit else row.measure),
        shown(row.a),
        shown(row.b),
        "" if ratio is None else f"{ratio:.3f}",
        Text(difference.outcome, style=STYLES[difference.outcome]) if difference else "",
        Text(difference.reason if difference else ""),
    )


def shown(sample: Sample) -> str:
    """The mean, to the digit that its spread leaves certain: 0.8899 ± 0.0030, 835 ± 155."""
    if not sample.n:
        return "-"
    mean, sd = sample.mean, sample.sd
    if not sd or not math.isfinite(sd):  # one value, equal ones, or what has no spread
        text = f"{mean:,.0f}" if math.isfinite(mean) and abs(mean) >= 10_000 else f"{mean:.5g}"
        return text if sd is None else f"{text} ± {sd:g}"
    decimals = max(0, 1 - math.floor(math.log10(sd)))
    return f"{mean:,.{decimals}f} ± {sd:,.{decimals}f}"


__all__ = ["By", "Comparison", "Row", "compare", "render", "split_engines"]

By = Literal["files", "engine"]
Key = tuple[str, ...]


def compare(
    records_a: Sequence[Record], records_b: Sequence[Record], *, names: tuple[str, str] = ("A", "B"), by: By = "files"
) -> Comparison:
    """Pair the records of two sides and compare them.

    Args:
        names: what the sides are called in the output.
        by: `files` pairs runs of the same engine, whatever their machines; `engine` runs of the same machine, whatever
            their engines.
    """
    mixed = _mixed(records_a, by=by) | _mixed(records_b, by=by)
    groups_a, groups_b = _grouped(records_a, by=by, mixed=mixed), _grouped(records_b, by=by, mixed=mixed)
    pairs: list[Pair] = []
    unpaired: list[Unpaired] = []
    for key in sorted(groups_a.keys() | groups_b.keys()):
        a, b = groups_a.get(key, []), groups_b.get(key, [])
        title = " · ".join(key)
        if not a or not b:
            present, other, absent = (groups_a, groups_b, 1) if a else (groups_b, groups_a, 0)
            unpaired.append(_without_counterpart(key, title, own=present, other=other, absent=names[absent]))
        elif reason := _obstacle(a, b):
            unpaired.append(Unpaired(title, reason, missing=False))
        else:
            pairs.append(_pair(title, a, b, by=by))
    return Comparison(names, tuple(pairs), tuple(unpaired))


def split_engines(records: Iterable[Record], *, engines: Sequence[str] = ()) -> dict[str, list[Record]]:
    """The two sides of a comparison by engine, A first.

    Args:
        engines: the two names, A first; where there are none, the two that the records are of, in the alphabet's order.

    Raises:
        RecordError: there are not two engines, or none of that name.
    """
    sides: dict[str, list[Record]] = {}
    for record in records:
        sides.setdefault(record.engine, []).append(record)
    has = ", ".join(sorted(sides))
    if unknown := [engine for engine in engines if engine not in sides]:
        raise RecordError(f"there is no record of engine {unknown[0]!r}: there are {has}")
    chosen = list(engines) or sorted(sides)
    if len(set(chosen)) != 2:
        raise RecordError(f"a comparison by engine is of two engines: name two of {has}")
    return {engine: sides[engine] for engine in chosen}


def _key(r: Record, *, by: By) -> Key:
    """Precision last, so that one can look for a group of another."""
    division = ("open division",) if r.spec.division == "open" else ()
    return (r.spec.name, r.spec.profile, *division, r.hardware.folder if by == "engine" else r.engine, r.precision)


def _mixed(records: Iterable[Record], *, by: By) -> set[Key]:
    """Keys under which one side has runs of several numbers of processes: these are groups of their own."""
    numbers: dict[Key, set[int]] = {}
    for r in records:
        numbers.setdefault(_key(r, by=by), set()).add(r.processes)
    return {key for key, found in numbers.items() if len(found) > 1}


def _grouped(records: Iterable[Record], *, by: By, mixed: set[Key]) -> dict[Key, list[Record]]:
    groups: dict[Key, list[Record]] = {}
    for r in records:
        key = _key(r, by=by)
        if key in mixed:
            key = (*key[:-1], counted(r), key[-1])
        groups.setdefault(key, []).append(r)
    return groups


def _without_counterpart(
    key: Key, title: str, *, own: dict[Key, list[Record]], other: dict[Key, list[Record]], absent: str
) -> Unpaired:
    precisions = sorted(k[-1] for k in other if k[:-1] == key[:-1] and k not in own)
    if precisions:
        return Unpaired(title, f"precision differs: {key[-1]} here, {', '.join(precisions)} in {absent}", missing=False)
    return Unpaired(title, f"missing in {absent}", missing=True)


def _obstacle(a: Sequence[Record], b: Sequence[Record]) -> str | None:
    """Why two groups cannot be compared, or None."""
    for letter, records in (("A", a), ("B", b)):
        engines = sorted({record.engine for record in records})
        if len(engines) > 1:
            return f"{letter} holds runs of several engines ({', '.join(engines)}): give those of one"
        machines = sorted({record.hardware.folder for record in records})
        if len(machines) > 1:
            return f"{letter} holds runs of several machines ({', '.join(machines)}): give the folder of one"
        for what, found in (
            ("specs", {r.spec.hash[:12] for r in records}),
            ("data", {r.dataset_fingerprint for r in records}),
        ):
            if len(found) > 1:
                return f"{letter} itself holds runs of several {what}: remove the old ones"
    if a[0].spec.hash != b[0].spec.hash:
        return f"spec hash differs: {a[0].spec.hash[:12]} in A, {b[0].spec.hash[:12]} in B"
    if a[0].dataset_fingerprint != b[0].dataset_fingerprint:
        return "dataset fingerprint differs: A and B saw other examples (or the same ones tokenized otherwise)"
    return None


def _pair(title: str, a: Sequence[Record], b: Sequence[Record], *, by: By) -> Pair:
    notes: list[str] = []
    kept = []
    for letter, records in (("A", a), ("B", b)):
        newest = newest_by_seed(records)
        if len(newest) < len(records):
            notes.append(f"{letter}: of several runs of one seed only the newest counts")
        kept.append(newest)
    first, second = kept
    notes.extend(_environment_notes(first[0], second[0]))
    rows = (*_quality_rows(first, second, notes), *_cost_rows(first, second))
    names = [r[0].engine if by == "engine" else r[0].hardware.folder for r in kept]
    if any(r[0].processes > 1 for r in kept):
        names = [f"{name}, {counted(r[0])}" for name, r in zip(names, kept, strict=True)]
    sides = [f"{name}, n={len(r)}" for name, r in zip(names, kept, strict=True)]
    return Pair(f"{title} (spec {first[0].spec.hash[:12]})", (sides[0], sides[1]), rows, tuple(notes))


def _quality_rows(a: Sequence[Record], b: Sequence[Record], notes: list[str]) -> Iterator[Row]:
    """Of the main metric, and of those that either side was judged by."""
    asserted = {verdict.metric for record in (*a, *b) for verdict in record.verdicts}
    names = dict.fromkeys(q.name for i, q in enumerate(a[0].quality) if i == 0 or q.name in asserted)
    for name in names:
        found_a, found_b = _metric(a, name), _metric(b, name)
        signatures = {quality.signature for quality in (*found_a, *found_b)}
        if len(signatures) > 1:
            notes.append(f"{name} is not comparable: its signature differs ({' against '.join(sorted(signatures))})")
            continue
        sample_a, sample_b = (Sample(tuple(quality.value for quality in found)) for found in (found_a, found_b))
        difference = quality_difference(sample_a, sample_b, higher_is_better=found_a[0].higher_is_better)
        yield Row(name, "", sample_a, sample_b, difference)


def _metric(records: Sequence[Record], name: str) -> list[Quality]:
    return [quality for record in records for quality in record.quality if quality.name == name]


def _cost_rows(a: Sequence[Record], b: Sequence[Record]) -> Iterator[Row]:
    def samples(figure: Figure) -> tuple[Sample, Sample]:
        return sample(a, figure), sample(b, figure)

    def measured(both: tuple[Sample, Sample]) -> Difference:
        found = cost_difference(*both)
        if a[0].processes != b[0].processes:  # that it differs is no news, and how much nobody has promised
            return Difference("no verdict", f"{counted(b[0])} against {counted(a[0])}", found.ratio, None)
        if reason := beside_others((*a, *b)):
            return Difference("no verdict", reason, found.ratio, None)
        return found

    seconds = samples("train seconds")
    yield Row("training", "s", *seconds, measured(seconds))
    yield Row("throughput", "tokens/s", *samples("tokens/s"), None)
    shares = samples("of the floor")
    if shares[0].n or shares[1].n:
        yield Row("floor / training", "%", *shares, None)
    others: tuple[tuple[Figure, str], ...] = (
        ("peak host memory", "MiB"),
        ("peak device memory", "MiB"),
        ("energy", "J"),
    )
    for figure, unit in others:
        both = samples(figure)
        if both[0].n or both[1].n:
            same_source = figure != "energy" or {r.energy.source for r in a} == {r.energy.source for r in b}
            difference = measured(both) if same_source else Difference("no verdict", "other counters", None, None)
            yield Row(figure, unit, *both, difference)


def _environment_notes(a: Record, b: Record) -> Iterator[str]:
    parts = (
        ("", a.software.packages, b.software.packages),
        ("", a.software.flags, b.software.flags),
        ("", a.software.environment, b.software.environment),
        (
            "",
            {"python": a.software.python, "attention": str(a.software.attention)},
            {"python": b.software.python, "attention": str(b.software.attention)},
        ),
        ("suite ", {"commit": str(a.suite.commit)[:12]}, {"commit": str(b.suite.commit)[:12]}),
    )
    for prefix, of_a, of_b in parts:
        for key in sorted(of_a.keys() | of_b.keys()):
            if of_a.get(key) != of_b.get(key):
                yield f"{prefix}{key}: {of_a.get(key, 'none')} in A, {of_b.get(key, 'none')} in B"
