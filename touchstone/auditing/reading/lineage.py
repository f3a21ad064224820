"""Find the source rows that processed rows were made of, such as the words and tags behind token ids and labels.

There are several places to look, and `lineages` yields what each of them gives, the surest first:

* rows that the user passed (`raw=`);
* the processed row itself, the attributes of a torch data set that tokenizes in `__getitem__`, and the columns below a
  transform;
* observed calls of `Dataset.map`: the user's function is called again on one source row at a time, which tells the rows
  that this source row became (one, or several windows). They are then looked up in the training data by their token
  ids, so shuffling, selecting and splitting after `map` do not matter;
* lists and tables in the script's own namespace that are as long as the data.

A probe takes the first lineage whose source rows it can read, and verifies it by tokenizing the source again.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.subject import MapCall, Row, Split, Subject, ints

ROWS = 96
"""Rows that are looked at. A fault that hits one row in 20 is missed by 96 rows in 1 of 137 runs."""
SCANNED = 20_000
"""Rows whose token ids are compared when source rows are looked up."""
TWINS = 64
"""Rows of the same ids that are compared at most."""
IDS = "input_ids"


@dataclass(frozen=True)
class Origin:
    """A processed row and the source row it was made of.

    Args:
        index: the row's index in the split.
        row: the processed row, with all its columns.
        source: the source row.
        number: the index of the source row.
        alone: what the user's function makes of the source row when it is called with nothing else, or None.
        place: the row's index in the result of the call of map, if it is known.
    """

    index: int
    row: Row
    source: Row
    number: int
    alone: Row | None = None
    place: int | None = None


@dataclass
class Lineage:
    """Processed rows with their sources.

    Args:
        origins: the rows, in the order of their sources.
        place: where the sources were found, for messages.
        where: `file:line` of the user's code that made the rows.
        sources: gives any source row by number, to look at neighbours; None beyond the ends.
        complete: the numbers of the source rows all of whose rows were found.
        batch: the number of source rows that the user's function gets at once, or None.
    """

    origins: list[Origin]
    place: str
    where: str = ""
    sources: Callable[[int], Row | None] = field(default=lambda number: None)
    complete: frozenset[int] = frozenset()
    batch: int | None = None


def lineages(subject: Subject, split: Split) -> Iterator[Lineage]:
    """Yield what is known about the sources of a split's rows, the surest first. Results are kept on the subject."""
    yield from subject.once(f"lineages of {split.name}", lambda: list(_find(subject, split)))


def _find(subject: Subject, split: Split) -> Iterator[Lineage]:
    size = len(split)
    if subject.raw is not None and split.name == "train" and _length(subject.raw) == size:
        columns = subject.raw_columns

        def raw_row(number: int) -> Row | None:
            if not 0 <= number < size:
                return None
            row = dict(subject.raw[number])
            return {name: row[name] for name in columns} if columns else row

        yield _indexed(split, raw_row, "raw=")
    yield _indexed(split, lambda number: _own_row(split.dataset, number, size), "the data set itself")
    if _has_ids(split.dataset):
        pad = getattr(subject.tokenizer, "pad_token_id", None)
        for call in _tokenizing(subject, split):
            found = _mapped(subject, split, call, pad)
            if found.origins:
                yield found
    script = sys.modules.get("__main__")
    if script is not None:
        columns_of = _columns(vars(script), size)
        yield _indexed(split, lambda number: _pick(columns_of, number, size), "the script's variables")


# Index by index -------------------------------------------------------------------------------------------------------


def _indexed(split: Split, source: Callable[[int], Row | None], place: str) -> Lineage:
    origins = []
    for index in spread(len(split)):
        found = source(index)
        if found:
            origins.append(Origin(index, _row(split.dataset, index), found, index))
    return Lineage(origins, place, sources=source, complete=frozenset(each.number for each in origins))


def spread(size: int) -> list[int]:
    """Return the indices that are looked at: two thirds of them at the start, the others evenly over the rest."""
    first = min(size, ROWS * 2 // 3)
    rest = min(size - first, ROWS - first)
    return [*range(first), *(first + (size - first) * step // rest for step in range(rest))]


def _row(dataset: Any, index: int) -> Row:
    row = dataset[index]
    return dict(row) if isinstance(row, Mapping) else {}


def _own_row(dataset: Any, number: int, size: int) -> Row | None:
    """Return everything that a data set holds about a row: its attributes, hidden columns, and the row itself."""
    if not 0 <= number < size:
        return None
    inner, indices = getattr(dataset, "dataset", None), getattr(dataset, "indices", None)
    if inner is not None and indices is not None and _length(indices) == size:  # torch.utils.data.Subset
        return _own_row(inner, int(indices[number]), _length(inner) or 0)
    found: Row = {}
    if hasattr(dataset, "with_format") and hasattr(dataset, "column_names"):
        found.update(dataset.with_format(None)[number])
    elif not isinstance(dataset, (list, tuple)) and hasattr(dataset, "__dict__"):
        found.update(_pick(_columns(vars(dataset), size), number, size) or {})
    return {**found, **_row(dataset, number)}


def _columns(namespace: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return the sequences of a namespace that have one entry per row."""
    found: dict[str, Any] = {}
    for name, value in list(namespace.items()):
        if name.startswith("__") or isinstance(value, (str, bytes, type)):
            continue
        if type(value) is dict or type(value).__name__ == "BatchEncoding":
            found.update({f"{name}.{key}": each for key, each in value.items() if _is_column(each, size)})
        elif _is_column(value, size):
            found[name] = value
    return found


def _is_column(value: Any, size: int) -> bool:
    # Other objects are left alone: even asking for their length may import modules or run code.
    kind = type(value)
    known = isinstance(value, Sequence) or any(hasattr(kind, name) for name in ("iloc", "tolist", "column_names"))
    return known and not isinstance(value, (str, bytes)) and size > 0 and _length(value) == size


def _pick(columns: Mapping[str, Any], number: int, size: int) -> Row | None:
    """Return one row of columns. Entries that are rows themselves (dicts, tuples, rows of a table) are unfolded."""
    if not 0 <= number < size or not columns:
        return None
    row: Row = {}
    for name, column in columns.items():
        try:
            entry = column.iloc[number] if hasattr(column, "iloc") else column[number]
        except Exception:  # a sequence of the user's own that cannot be read: the next column may do
            continue
        if hasattr(entry, "to_dict"):  # pandas
            entry = entry.to_dict()
        if isinstance(entry, Mapping):
            row.update({f"{name}.{key}": each for key, each in entry.items()})
            if "text" in entry or "answer_start" in entry:
                row[name] = dict(entry)
        elif isinstance(entry, tuple) and not hasattr(entry, "_fields"):
            row.update({f"{name}.{place}": each for place, each in enumerate(entry)})
        elif hasattr(entry, "__dataclass_fields__") or hasattr(entry, "_fields"):
            names = getattr(entry, "_fields", None) or list(entry.__dataclass_fields__)
            row.update({f"{name}.{each}": getattr(entry, each) for each in names})
        else:
            row[name] = entry
    return row


# By the observed calls of map -----------------------------------------------------------------------------------------


def _names(dataset: Any) -> Sequence[str]:
    names = getattr(dataset, "column_names", None)
    return names if isinstance(names, (list, tuple)) else ()


def _has_ids(dataset: Any) -> bool:
    if _names(dataset):
        return IDS in _names(dataset)
    try:
        return IDS in dataset[0]
    except Exception:
        return False


def _tokenizing(subject: Subject, split: Split) -> list[MapCall]:
    """Return the calls that made token ids, those first whose result is as long as the split."""
    calls = [call for call in subject.maps if IDS in _names(call.result) and IDS not in _names(call.source)]
    return sorted(calls, key=lambda call: (call.result is not split.dataset, _length(call.result) != len(split)))


def _mapped(subject: Subject, split: Split, call: MapCall, pad: int | None) -> Lineage:
    size = _length(call.source) or 0
    one_to_one = _length(call.result) == size
    later = [each for each in subject.maps if each is not call and IDS in _names(each.source)]
    places = _Places(split, pad)
    numbers = spread(size) if one_to_one else list(range(min(size, ROWS * 2 // 3)))
    made = _make(call, numbers)
    links = _link(made, places, call, pad)
    if not links and made and later:
        made = {number: _continue(rows, call, later) for number, rows in made.items()}
        links = _link(made, places, call, pad)
    if not links and one_to_one:
        numbers = _numbers_of(split, call.result, pad)
        made = _make(call, numbers)
        links = _link(made, places, call, pad)

    def source(number: int) -> Row | None:
        return _source_row(subject, call, number) if 0 <= number < size else None

    starts: dict[int, int] = {}
    if list(made) == list(range(len(made))):
        begin = 0
        for number, rows in made.items():
            starts[number] = begin
            begin += len(rows)
    origins = [
        Origin(
            index,
            _row(split.dataset, index),
            source(number) or {},
            number,
            alone,
            starts[number] + made[number].index(alone) if number in starts else None,
        )
        for number, found in links.items()
        for index, alone in found
    ]
    complete = frozenset(number for number, found in links.items() if len(found) == len(made[number]))
    together = min(size, call.options.get("batch_size") or size) if call.batched else None
    return Lineage(origins, "the calls of map", call.where, source, complete, together)


def _make(call: MapCall, numbers: Sequence[int]) -> dict[int, list[Row]]:
    """Call the user's function with one source row at a time. Rows on which it raises are left out."""
    made: dict[int, list[Row]] = {}
    failures = 0
    for number in numbers:
        try:
            rows = call.apply([number])
        except Exception:
            failures += 1
            if failures > 3 and not made:
                break
            continue
        if rows and all(IDS in row for row in rows):
            made[number] = rows
    return made


def _continue(rows: list[Row], call: MapCall, later: Sequence[MapCall]) -> list[Row]:
    """Apply the calls of map that came after the tokenizing one."""
    for each in later:
        if set(_names(each.source)) <= set(rows[0]) | set(_names(call.result)):
            try:
                changed = replace(each, source=rows).apply(range(len(rows)))
            except Exception:
                continue
            same = len(changed) == len(rows)
            rows = [{**(rows[place] if same else {}), **row} for place, row in enumerate(changed)] or rows
    return rows


def _link(
    made: Mapping[int, list[Row]], places: _Places, call: MapCall, pad: int | None
) -> dict[int, list[tuple[int, Row]]]:
    """Look up rows by their token ids.

    Ids that come from several sources, or lie at several places, are looked up by the whole row: a row that equals what
    the user's function makes of a source is its row, whichever of the equal ones it is. Others are left out.
    """
    keys = {number: [key_of(row.get(IDS, ()), pad) for row in rows] for number, rows in made.items()}
    counted = Counter(each for row_keys in keys.values() for each in row_keys)
    found = places.find(set(counted), guesses=list(keys) if _length(call.result) == len(places) else [])
    links: dict[int, list[tuple[int, Row]]] = {}
    used: set[int] = set()
    for number, row_keys in keys.items():
        hits = []
        for key, row in zip(row_keys, made[number], strict=True):
            here = found.get(key, [])
            if len(here) > 1 or counted[key] > 1:
                free = [each for each in here[:TWINS] if each not in used]
                here = [each for each in free if places.holds(each, row)][:1]
            if here:
                used.add(here[0])
                hits.append((here[0], row))
        if hits:
            links[number] = hits
    return links


class _Places:
    """Where token ids lie in a split."""

    def __init__(self, split: Split, pad: int | None) -> None:
        self._split, self._pad = split, pad
        self._known: dict[tuple[int, ...], list[int]] = {}
        self._seen: set[int] = set()
        self._next = 0

    def __len__(self) -> int:
        return len(self._split)

    def find(self, keys: set[tuple[int, ...]], guesses: Sequence[int]) -> dict[tuple[int, ...], list[int]]:
        for guess in guesses:
            if guess < len(self) and guess not in self._seen:
                self._note(guess, ints(self._split.dataset[guess][IDS]))
        # Some thousand rows are always compared, so that repeated rows are noticed.
        while self._next < min(len(self), SCANNED) and (
            self._next < SCANNED // 10 or any(key not in self._known for key in keys)
        ):
            for index, ids in enumerate(read_ids(self._split.dataset, self._next, 1000), self._next):
                self._note(index, ids)
            self._next += 1000
        return {key: self._known.get(key, []) for key in keys}

    def holds(self, index: int, row: Row) -> bool:
        """Return whether the row at a place equals another row in all columns that both have."""
        own = _row(self._split.dataset, index)
        return all(_plain(own[name]) == _plain(row[name]) for name in own if name in row)

    def _note(self, index: int, ids: Sequence[int]) -> None:
        if index not in self._seen:
            self._seen.add(index)
            self._known.setdefault(key_of(ids, self._pad), []).append(index)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def read_ids(dataset: Any, start: int, count: int) -> list[list[int]]:
    """Return the token ids of consecutive rows."""
    stop = min(start + count, len(dataset))
    if hasattr(dataset, "select_columns") and IDS in _names(dataset):
        rows = dataset.with_format(None).select_columns([IDS])[start:stop][IDS]
    else:
        rows = [dataset[index][IDS] for index in range(start, stop)]
    return [ints(row) for row in rows]


def key_of(ids: Any, pad: int | None) -> tuple[int, ...]:
    """Return token ids without the padding at either side.

    >>> key_of([0, 0, 5, 6, 0], pad=0)
    (5, 6)
    """
    values = ints(ids)
    start, stop = 0, len(values)
    while start < stop and values[start] == pad:
        start += 1
    while stop > start and values[stop - 1] == pad:
        stop -= 1
    return tuple(values[start:stop])


def _numbers_of(split: Split, result: Any, pad: int | None) -> list[int]:
    """Return where the first rows of a split lie in the result of a call of map."""
    wanted = {key_of(ids, pad) for ids in read_ids(split.dataset, 0, ROWS // 3)}
    found: list[int] = []
    for start in range(0, min(_length(result) or 0, SCANNED), 1000):
        found += [start + at for at, ids in enumerate(read_ids(result, start, 1000)) if key_of(ids, pad) in wanted]
        if len(found) >= len(wanted):
            break
    return list(islice(found, ROWS))


def _source_row(subject: Subject, call: MapCall, number: int) -> Row:
    """Return a source row, with the columns that an earlier call of map removed."""
    row = dict(call.source[number])
    for earlier in reversed(subject.maps):
        if earlier.result is call.source and _length(earlier.source) == _length(call.source):
            return {**_source_row(subject, earlier, number), **row}
    return row


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except Exception:
        return None


# What is shared by the probes that read lineages ----------------------------------------------------------------------


def tokens_of(split: Split, origins: Sequence[Origin]) -> list[Row]:
    """Return each row as the model receives it: its part of a batch, as lists, in the order of the origins.

    Raises:
        NotChecked: the collator does not make one row of the batch of each row.
    """
    made: list[Row] = []
    size = max(1, min(split.batch_size, 16))
    for start in range(0, len(origins), size):
        part = origins[start : start + size]
        rows = [split.dataset[each.index] for each in part]
        if split.columns is not None:
            rows = [{key: value for key, value in row.items() if key in split.columns} for row in rows]
        batch = {key: value for key, value in split.batch(rows).items() if hasattr(value, "tolist")}
        if IDS not in batch or len(batch[IDS]) != len(part):
            raise NotChecked("the collator joins rows (packing): rows of a batch cannot be traced to their sources")
        columns = {key: value.tolist() for key, value in batch.items() if len(value.shape) >= 1}
        made += [
            {key: column[place] for key, column in columns.items() if len(column) == len(part)}
            for place in range(len(part))
        ]
    return made
