"""Probes of caches: what map returns is what its function makes now."""

from __future__ import annotations

from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.subject import MapCall, Subject

GROUP = "cache"
ROWS = 8
BATCH = 1000
FIXED = ("cache_file_name", "new_fingerprint")


@probe(
    "map-is-fresh",
    group=GROUP,
    says="What Dataset.map returned is what its function makes now of the same rows.",
    budget="fast",
)
def map_is_fresh(subject: Subject) -> Finding:
    """Call the functions of map again and compare their rows with those that map returned.

    Fault: map returned an old result: not what its function makes of these rows now.

    Causes: cache_file_name or new_fingerprint names the cache, so datasets reads it whatever the function or tokenizer
    is.

    Remedy: Leave the argument out, delete the file, or pass `load_from_cache_file=False`.

    Warning: The function depends on something that changed after the call, such as a global variable or the
    tokenizer's settings.
    """
    calls = [
        call for call in subject.maps if hasattr(call.source, "__len__") and len(call.source) and not _of_library(call)
    ]
    if not calls:
        raise NotChecked("no call of Dataset.map was seen")
    unclear = ""
    compared = 0
    for call in calls:
        try:
            difference = _difference(call)
        except Exception as error:
            unclear = f"the function of map at {call.where or 'an unknown line'} cannot be repeated ({error})"
            continue
        if difference is None:
            compared += 1
            continue
        if not _repeats(call):
            unclear = f"the function of map gives other rows each time: {call.where}"
            continue
        option = next((name for name in FIXED if call.options.get(name) is not None), None)
        index, column, stored, made = difference
        example = Example(
            ("column", "returned by map", "made now"), [(column, _short(stored), _short(made))], caption=f"row {index}"
        )
        name = getattr(call.function, "__name__", type(call.function).__name__)
        message = f"map returned other rows than {name} makes now (row {index}, column {column!r})"
        if option is None:
            return warn(
                message,
                cause=f"the function depends on something that changed after the call, such as a global variable or "
                f"the tokenizer's settings ({call.where})",
                example=example,
            )
        return fail(
            message,
            cause=f"{option}={call.options[option]!r} names the cache, so datasets reads an old result of another "
            f"function or tokenizer: leave it out, delete the file, or pass load_from_cache_file=False ({call.where})",
            example=example,
        )
    if not compared:
        raise NotChecked(unclear)
    rest = f"; {unclear}" if unclear else ""
    return passed(
        f"{compared} of {len(calls)} calls of map returned what their functions make now{rest}", measured=compared
    )


def _of_library(call: MapCall) -> bool:
    """Say whether the function belongs to datasets itself, as that of `filter`."""
    function = getattr(call.function, "func", call.function)
    return str(getattr(function, "__module__", "")).split(".")[0] == "datasets"


def _difference(call: MapCall) -> tuple[int, str, Any, Any] | None:
    """Return the first difference between stored and new rows: row, column, stored value, new value."""
    total = len(call.source)
    if call.options.get("with_rank"):
        raise NotImplementedError("with_rank")
    if not call.batched:
        indices = [index * total // min(total, ROWS) for index in range(min(total, ROWS))]
        return _first(call, indices, [dict(row) for row in call.apply(indices)])
    if len(call.result) == total:
        # Rows that do not depend on their batch need no whole batch.
        indices = list(range(min(total, ROWS)))
        if _first(call, indices, [dict(row) for row in call.apply(indices)]) is None:
            return None
    size = call.options.get("batch_size", BATCH)
    size = total if size is None or size <= 0 else int(size)
    if min(size, total) > 2 * BATCH:
        raise NotImplementedError("batches too large to repeat")
    made = call.apply(range(min(size, total)))
    return _first(call, list(range(min(len(made), ROWS))), made[:ROWS])


def _first(call: MapCall, indices: list[int], made: list[dict[str, Any]]) -> tuple[int, str, Any, Any] | None:
    for index, row in zip(indices, made, strict=False):
        if index >= len(call.result):
            return index, "(the row itself)", None, sorted(row)
        stored = call.result[index]
        for column, value in row.items():
            if column not in stored:
                continue
            if _plain(stored[column]) != _plain(value):
                return index, column, stored[column], value
    return None


def _repeats(call: MapCall) -> bool:
    """Say whether the function gives the same rows twice."""
    indices = range(min(len(call.source), ROWS))
    return [_plain(dict(row)) for row in call.apply(indices)] == [_plain(dict(row)) for row in call.apply(indices)]


def _plain(value: Any) -> Any:
    """Return a value in the form that a data set stores: lists for arrays and tuples, numbers without their types."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        # Data sets fill missing keys of a struct with None.
        return {key: _plain(each) for key, each in value.items() if each is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, bool):
        return int(value)
    return round(value, 5) if isinstance(value, float) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
