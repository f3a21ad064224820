"""Hold the first rows of a stream, so that what reads rows by index can read them."""

from __future__ import annotations

import contextlib
import copy
import itertools
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.subject import MapCall, Split, Subject

HELD = 1500
"""Rows that are held at most. A stream that is shuffled after `map` must give some of its first source rows."""
SECONDS = 3.0
"""Seconds that reading one stream may take."""


class Held(list[Any]):
    """The first rows of a stream, with what the stream says of its columns."""

    def __init__(self, rows: list[Any], features: Any = None) -> None:
        super().__init__(rows)
        self.features = features

    @property
    def column_names(self) -> list[str] | None:
        """The names of the columns, or None if the rows have none."""
        first = self[0] if self else None
        return list(first) if isinstance(first, Mapping) else None


def is_stream(dataset: Any) -> bool:
    """Return whether the rows of a data set cannot be counted."""
    return not hasattr(dataset, "__len__")


def hold(stream: Any, count: int = HELD) -> Held:
    """Return the first rows of a stream, read from a copy.

    Raises:
        NotChecked: the stream cannot be copied.
    """
    try:
        copied = copy.deepcopy(stream)
    except Exception as error:
        raise NotChecked(f"the stream cannot be copied ({error}), so that its rows cannot be looked at") from error
    rows: list[Any] = []
    started = time.monotonic()
    for row in itertools.islice(copied, count):
        rows.append(row)
        if time.monotonic() - started > SECONDS:
            break
    return Held(rows, getattr(stream, "features", None))


def held(subject: Subject, split: Split) -> tuple[Subject, Split]:
    """Return a subject and a split whose rows can be read by index: themselves, or views of the first rows of a stream.

    The view of the subject has the observed calls of `map` on streams, with their first source rows.
    """
    if not is_stream(split.dataset):
        return subject, split
    return subject.once(f"held {split.name}", lambda: _views(subject, split))


def _views(subject: Subject, split: Split) -> tuple[Subject, Split]:
    known: dict[int, Held] = {}

    def held_rows(stream: Any) -> Held:
        if id(stream) not in known:
            known[id(stream)] = hold(stream)
        return known[id(stream)]

    still = replace(split, dataset=held_rows(split.dataset))
    sources: list[tuple[MapCall, Held]] = []
    for call in subject.streamed:
        with contextlib.suppress(NotChecked):
            sources.append((call, held_rows(call.source)))
    calls = []
    for call, source in sources:
        # Only a function of single rows keeps the number of each row, so that later sources can be joined to its own.
        kept = None if call.batched else known.get(id(call.result))
        with contextlib.suppress(NotChecked):
            calls.append(replace(call, source=source, result=hold(call.result, 1) if kept is None else kept))
    view = copy.copy(subject)
    view.maps, view._made = [*subject.maps, *calls], {}
    return view, still
