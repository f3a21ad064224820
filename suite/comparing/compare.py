"""Records of two machines, two commits or two engines side by side: ratios, verdicts, and what cannot be compared and
why.

Only like is compared with like: the same spec by its hash, the same data by its fingerprint, the same precision, and
(unless engines are what is compared) the same engine. Runs of different numbers of processes are judged by their
quality; their costs are shown beside the numbers. The open division is compared with itself alone (what stands across
engines, precisions and divisions are `suite.comparing.times`). `suite.comparing.difference` says when a difference
counts. The sides are called A and B; B is judged against A.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from suite.comparing.comparison import Comparison, Pair, Row, Unpaired, render
from suite.comparing.difference import Difference, Sample, cost_difference, quality_difference
from suite.comparing.runs import Figure, beside_others, counted, newest_by_seed, sample
from suite.records.record import Quality, Record, RecordError

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
