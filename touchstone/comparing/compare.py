"""Compare the records of two machines, commits or engines: ratios, verdicts, and why some runs cannot be compared.

Only like runs are compared: the same spec (by its hash), the same data (by its fingerprint), the same precision and,
unless engines are compared, the same engine. Runs with different numbers of processes are judged by their quality only;
their costs are shown without a verdict. The open division is compared only with itself; `touchstone.comparing.times`
shows times across engines, precisions and divisions. `touchstone.comparing.difference` decides whether a difference
counts. The two sides are called A and B; B is judged against A.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from touchstone.comparing.difference import Difference, Sample, cost_difference, quality_difference
from touchstone.records.machine import runs_alone
from touchstone.records.record import Quality, Record, RecordError, read_records

Side = Sequence[Record] | str | Path
"""Records, or the path of a record file or of a directory of records."""
By = Literal["files", "engine"]
Key = tuple[str, ...]
"""What runs must have in common to be compared, as text; the precision comes last."""
Figure = Literal["train seconds", "tokens/s", "of the floor", "peak host memory", "peak device memory", "energy"]
ExitCode = Literal[0, 1, 2, 3]

MEANINGS: dict[ExitCode, str] = {
    0: "B is nowhere significantly worse than A",
    1: "B is significantly worse than A",
    2: "nothing can be compared, or some runs differ in what was measured",
    3: "some runs have no counterpart on the other side",
}
LEGEND = (
    "Values are mean ± standard deviation over seeds. B is worse or better if p < 0.01 (Welch's t-test) and the "
    "change is larger than 5% (for a metric: larger than its spread over seeds) and larger than the spread of the runs."
)
STYLES = {"worse": "red", "better": "green", "same": "", "no verdict": "dim"}
TEXT_WIDTH = 120
"""Line width of `str(comparison)`."""


@dataclass(frozen=True)
class Row:
    """One measure of a pair.

    Attributes:
        difference: None if the row repeats another one in a different unit (tokens/s repeats the time).
    """

    measure: str
    unit: str
    a: Sample
    b: Sample
    difference: Difference | None


@dataclass(frozen=True)
class Pair:
    """Runs that were compared, one record per seed on each side.

    Attributes:
        notes: other differences between the sides (software, flags, environment), and runs that were left out.
    """

    title: str
    sides: tuple[str, str]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Unpaired:
    """Runs that cannot be compared.

    Attributes:
        missing: whether the other side has no such runs at all.
    """

    title: str
    reason: str
    missing: bool


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`. `print(comparison)` shows it as tables, and rich consoles print it in colour."""

    names: tuple[str, str]
    pairs: tuple[Pair, ...]
    unpaired: tuple[Unpaired, ...]

    @property
    def tested(self) -> bool:
        """Whether any difference was tested. It needs two seeds on each side."""
        outcomes = {row.difference.outcome for pair in self.pairs for row in pair.rows if row.difference}
        return bool(outcomes - {"no verdict"})

    @property
    def exit_code(self) -> ExitCode:
        """0: B is as good or better. 1: B is significantly worse. 2: not comparable. 3: runs without counterpart."""
        if any(row.difference and row.difference.outcome == "worse" for pair in self.pairs for row in pair.rows):
            return 1
        if not self.pairs or any(not one.missing for one in self.unpaired):
            return 2
        return 3 if self.unpaired else 0

    def __str__(self) -> str:
        out = io.StringIO()
        Console(file=out, width=TEXT_WIDTH, no_color=True, highlight=False).print(self)
        return out.getvalue().rstrip("\n")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text.assemble("A = ", self.names[0], ", B = ", self.names[1])
        for pair in self.pairs:
            yield _table(pair)
            for note in pair.notes:
                yield Text(f"  {note}", style="dim")
        if self.unpaired:
            yield Text("Not compared", style="bold")
            for one in self.unpaired:
                yield Text(f"  {one.title}: {one.reason}")
        yield Text(LEGEND, style="dim")
        code, meaning = self.exit_code, MEANINGS[self.exit_code]
        if code == 0 and not self.tested:
            meaning = "no difference could be tested: at least two seeds per side are needed"
        yield Text(f"{meaning} (exit code {code})", style="bold red" if code == 1 else "bold")


def compare(a: Side, b: Side, *, names: tuple[str, str] | None = None, by: By = "files") -> Comparison:
    """Compare two sets of records. B is judged against A.

    Args:
        a: records, or the path of a record file or of a directory of records.
        b: likewise.
        names: names of the sides in the output; by default the names of the paths, or "A" and "B" for records.
        by: "files" compares runs of the same engine, on any machines; "engine" compares runs of the same machine, with
            any engines.

    Returns:
        The comparison, which prints as tables.

    Raises:
        RecordError: a path does not exist, holds no records, or a record cannot be read.

    >>> import touchstone
    >>> records = touchstone.read_records("results")  # doctest: +SKIP
    >>> before = [record for record in records if record.engine == "trainer"]  # doctest: +SKIP
    >>> after = [record for record in records if record.engine == "loop"]  # doctest: +SKIP
    >>> comparison = touchstone.compare(before, after, by="engine")  # doctest: +SKIP
    >>> print(comparison)  # doctest: +SKIP
    >>> comparison.exit_code  # 0: nowhere significantly worse  # doctest: +SKIP
    0
    """
    names = names or _names(a, b)
    records_a, records_b = _records(a), _records(b)
    mixed = _mixed(records_a, by=by) | _mixed(records_b, by=by)
    groups_a, groups_b = _grouped(records_a, by=by, mixed=mixed), _grouped(records_b, by=by, mixed=mixed)
    pairs: list[Pair] = []
    unpaired: list[Unpaired] = []
    for key in sorted(groups_a.keys() | groups_b.keys()):
        group_a, group_b = groups_a.get(key, []), groups_b.get(key, [])
        title = " · ".join(key)
        if not group_a or not group_b:
            present, other, absent = (groups_a, groups_b, 1) if group_a else (groups_b, groups_a, 0)
            unpaired.append(_without_counterpart(key, title, own=present, other=other, absent=names[absent]))
        elif reason := _obstacle(group_a, group_b):
            unpaired.append(Unpaired(title, reason, missing=False))
        else:
            pairs.append(_pair(title, group_a, group_b, by=by))
    return Comparison(names, tuple(pairs), tuple(unpaired))


def split_engines(records: Iterable[Record], *, engines: Sequence[str] = ()) -> dict[str, list[Record]]:
    """Split records by engine into the two sides of a comparison, A first.

    Args:
        engines: the two names, A first; by default the two engines of the records, in alphabetical order.

    Raises:
        RecordError: there are not exactly two engines, or an engine has no records.
    """
    sides: dict[str, list[Record]] = {}
    for record in records:
        sides.setdefault(record.engine, []).append(record)
    found = ", ".join(sorted(sides))
    if unknown := [engine for engine in engines if engine not in sides]:
        raise RecordError(f"there is no record of engine {unknown[0]!r}; engines found: {found}")
    chosen = list(engines) or sorted(sides)
    if len(set(chosen)) != 2:
        raise RecordError(f"--by engine compares exactly two engines; engines found: {found}; choose with --engines")
    return {engine: sides[engine] for engine in chosen}


def _records(side: Side) -> Sequence[Record]:
    return read_records(Path(side)) if isinstance(side, str | Path) else side


def _names(a: Side, b: Side) -> tuple[str, str]:
    """Name the sides by their paths: short, but never the same name for both."""
    if not (isinstance(a, str | Path) and isinstance(b, str | Path)):
        return "A", "B"
    short = Path(a).stem, Path(b).stem
    return short if short[0] != short[1] else (f"A: {a}", f"B: {b}")


def _key(r: Record, *, by: By) -> Key:
    """Return what a run must have in common with the runs it is compared with."""
    division = ("open division",) if r.spec.division == "open" else ()
    return (r.spec.name, r.spec.profile, *division, r.hardware.folder if by == "engine" else r.engine, r.precision)


def _mixed(records: Iterable[Record], *, by: By) -> set[Key]:
    """Return the keys under which one side has runs with several numbers of processes; these are grouped separately."""
    numbers: dict[Key, set[int]] = {}
    for r in records:
        numbers.setdefault(_key(r, by=by), set()).add(r.processes)
    return {key for key, found in numbers.items() if len(found) > 1}


def _grouped(records: Iterable[Record], *, by: By, mixed: set[Key]) -> dict[Key, list[Record]]:
    groups: dict[Key, list[Record]] = {}
    for r in records:
        key = _key(r, by=by)
        if key in mixed:
            key = (*key[:-1], process_count(r), key[-1])
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
    """Return why two groups cannot be compared, or None if they can."""
    for letter, records in (("A", a), ("B", b)):
        engines = sorted({record.engine for record in records})
        if len(engines) > 1:
            return f"{letter} has runs of several engines ({', '.join(engines)}); give the records of one engine"
        machines = sorted({record.hardware.folder for record in records})
        if len(machines) > 1:
            return f"{letter} has runs of several machines ({', '.join(machines)}); give the directory of one machine"
        for what, found in (
            ("versions of the spec", {r.spec.hash[:12] for r in records}),
            ("data sets", {r.dataset_fingerprint for r in records}),
        ):
            if len(found) > 1:
                return f"{letter} has runs with several {what}; remove the old ones"
    if a[0].spec.hash != b[0].spec.hash:
        return f"spec hash differs: {a[0].spec.hash[:12]} in A, {b[0].spec.hash[:12]} in B"
    if a[0].dataset_fingerprint != b[0].dataset_fingerprint:
        return "dataset fingerprint differs: A and B used different examples"
    return None


def _pair(title: str, a: Sequence[Record], b: Sequence[Record], *, by: By) -> Pair:
    notes: list[str] = []
    kept = []
    for letter, records in (("A", a), ("B", b)):
        newest = newest_by_seed(records)
        if len(newest) < len(records):
            notes.append(f"{letter}: only the newest run of each seed is used")
        kept.append(newest)
    first, second = kept
    notes.extend(_environment_notes(first[0], second[0]))
    rows = (*_quality_rows(first, second, notes), *_cost_rows(first, second))
    names = [r[0].engine if by == "engine" else r[0].hardware.folder for r in kept]
    if any(r[0].processes > 1 for r in kept):
        names = [f"{name}, {process_count(r[0])}" for name, r in zip(names, kept, strict=True)]
    sides = [f"{name}, n={len(r)}" for name, r in zip(names, kept, strict=True)]
    return Pair(f"{title} (spec {first[0].spec.hash[:12]})", (sides[0], sides[1]), rows, tuple(notes))


def _quality_rows(a: Sequence[Record], b: Sequence[Record], notes: list[str]) -> Iterator[Row]:
    """Build the rows of the main metric and of the metrics that either side was judged by."""
    asserted = {verdict.metric for record in (*a, *b) for verdict in record.verdicts}
    names = dict.fromkeys(q.name for i, q in enumerate(a[0].quality) if i == 0 or q.name in asserted)
    for name in names:
        found_a, found_b = _metric(a, name), _metric(b, name)
        signatures = {quality.signature for quality in (*found_a, *found_b)}
        if len(signatures) > 1:
            notes.append(f"{name} is not comparable: its signature differs ({' and '.join(sorted(signatures))})")
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
        if a[0].processes != b[0].processes:  # a difference is expected, but not its size
            return Difference(
                "no verdict", f"{process_count(b[0])} instead of {process_count(a[0])}", found.ratio, None
            )
        if reason := shared_machine((*a, *b)):
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
            difference = (
                measured(both) if same_source else Difference("no verdict", "different energy counters", None, None)
            )
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


def newest_by_seed(records: Iterable[Record]) -> tuple[Record, ...]:
    """Return the newest run of each seed, ordered by seed."""
    newest = {record.seed: record for record in sorted(records, key=lambda r: r.finished)}
    return tuple(newest[seed] for seed in sorted(newest))


def shared_machine(records: Iterable[Record]) -> str | None:
    """Return why the costs of these runs cannot be compared, or None if each had the machine to itself."""
    alone = all(runs_alone(record.software.environment) for record in records)
    return None if alone else "other runs shared the machine (pytest -n)"


def process_count(record: Record) -> str:
    return f"{record.processes} process{'es' if record.processes > 1 else ''}"


def sample(records: Sequence[Record], figure: Figure) -> Sample:
    """Return one figure for each run, in seconds, tokens per second, percent, MiB or joules."""
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


def _table(pair: Pair) -> Table:
    table = Table(title=escape(pair.title), title_justify="left", header_style="bold")
    for heading in ("", f"A: {pair.sides[0]}", f"B: {pair.sides[1]}", "B / A", "B is", "because"):
        left = heading in ("", "B is", "because")
        table.add_column(escape(heading), justify="left" if left else "right", overflow="fold")
    for row in pair.rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> tuple[str | Text, ...]:
    difference = row.difference
    ratio = difference.ratio if difference else row.b.mean / row.a.mean if row.a.n and row.b.n and row.a.mean else None
    return (
        Text(f"{row.measure} [{row.unit}]" if row.unit else row.measure),
        mean_text(row.a),
        mean_text(row.b),
        "" if ratio is None else f"{ratio:.3f}",
        Text(difference.outcome, style=STYLES[difference.outcome]) if difference else "",
        Text(difference.reason if difference else ""),
    )


def mean_text(sample: Sample) -> str:
    """Format a mean with as many digits as its spread justifies: 0.8899 ± 0.0030, 835 ± 155."""
    if not sample.n:
        return "-"
    mean, sd = sample.mean, sample.sd
    if not sd or not math.isfinite(sd):  # one value, equal values, or infinite ones
        text = f"{mean:,.0f}" if math.isfinite(mean) and abs(mean) >= 10_000 else f"{mean:.5g}"
        return text if sd is None else f"{text} ± {sd:g}"
    decimals = max(0, 1 - math.floor(math.log10(sd)))
    return f"{mean:,.{decimals}f} ± {sd:,.{decimals}f}"
