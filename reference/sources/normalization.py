"""Turns the columns of somebody's data set into those that pipelines ask for, and checks them row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from touchstone.sources.source import SourceError

# The column `answers` of extractive question answering, as in SQuAD: texts, and where each begins in its context.


ANSWERS = {"text": datasets.List(datasets.Value("string")), "answer_start": datasets.List(datasets.Value("int64"))}


def checked_answers(rows: datasets.Dataset, *, own: str, where: str) -> datasets.Dataset:
    """`rows` with `answers` as `ANSWERS` says; whatever else the column tells of them is left out.

    Args:
        rows: with the column `answers`, and perhaps `context`.
        own: the data set's own name of the column.
        where: the data set, for messages.

    Raises:
        SourceError: a column of another kind; texts and starts that differ in number, an answer of no characters, or
            one that does not stand in its context where it says.
    """
    feature: Any = rows.features["answers"]
    fields = dict(feature) if isinstance(feature, Mapping) else {}
    kinds = {name: str(getattr(getattr(fields.get(name), "feature", None), "dtype", "")) for name in ANSWERS}
    if kinds["text"] not in ("string", "large_string") or not kinds["answer_start"].startswith(("int", "uint")):
        raise SourceError(
            f"column {own!r} of {where} holds {feature}, not answers: a list `text` of strings and a list "
            f"`answer_start` of integers are needed"
        )
    answers = rows.with_format("arrow")[:].column("answers").to_pylist()
    contexts = rows["context"][:] if "context" in rows.column_names else None
    for row, answer in enumerate(answers):
        _check(answer, context=None if contexts is None else contexts[row], where=f"{where}, row {row}: `{own}`")
    if fields == ANSWERS:
        return rows
    if fields.keys() == ANSWERS.keys():
        return rows.cast_column("answers", ANSWERS)
    kept = [{name: answer[name] for name in ANSWERS} for answer in answers]
    return rows.remove_columns("answers").add_column("answers", kept, feature=ANSWERS)


def _check(answer: Mapping[str, Any], *, context: str | None, where: str) -> None:
    texts, starts = answer["text"], answer["answer_start"]
    if texts is None or starts is None or len(texts) != len(starts):
        raise SourceError(f"{where} has the texts {texts} for the starts {starts}")
    for text, start in zip(texts, starts, strict=True):
        if not text or start is None or start < 0:
            raise SourceError(f"{where} has the answer {text!r} at {start}: give its characters and where they begin")
        if context is not None and (there := context[start : start + len(text)]) != text:
            raise SourceError(
                f"{where} has the answer {text!r} at {start}, where the context has {there!r}: count characters (not "
                f"bytes) from 0"
            )


WORDS = datasets.List(datasets.Value("string"))
TEXT = datasets.Value("string")
TEXTS = ("text", "code", "source", "target", "document", "summary", "question", "context")
"""Contract columns that hold one text a row."""


def label_names(feature: Any) -> list[str] | None:
    """Names of a column of labels, or None where its feature has none."""
    inner = getattr(feature, "feature", feature)
    return list(inner.names) if isinstance(inner, datasets.ClassLabel) else None


def column_names(rows: datasets.Dataset) -> list[str]:
    """The columns, and after them the fields of those that have any: `translation`, `translation.en`."""
    return list(dict.fromkeys([*rows.column_names, *rows.select(range(0)).flatten().column_names]))


def contract_columns(
    rows: datasets.Dataset, *, mapping: Mapping[str, str], tag_names: Sequence[str] | None, where: str
) -> datasets.Dataset:
    """`rows` with exactly the columns that `mapping` (contract column to data set column) names, under the contract's
    names.

    `words` becomes lists of strings, `tags` lists of `ClassLabel`, those of `TEXTS` strings, `answers` texts with the
    characters of `context` where they begin. Other columns stay as they are. A name that is no column's leads into one
    with fields: `translation.en` is the field `en` of `translation`.

    Raises:
        SourceError: a missing column or field, a column of another kind, a missing value, a label outside the names,
            words and tags that differ in number, an answer that is not where it says: each with the row and the value.
    """
    there = column_names(rows)
    for column, own in mapping.items():
        if own not in there:
            raise SourceError(
                f"{where} has no column {own!r} (for `{column}`): it has {', '.join(there)}. "
                f"Say which one it is with `columns` in the data settings"
            )
    if fields := list(dict.fromkeys(own for own in mapping.values() if own not in rows.column_names)):
        # Beside the columns, not in their stead: `answers` stays one.
        rows = datasets.concatenate_datasets([rows, rows.flatten().select_columns(fields)], axis=1)
    rows = rows.select_columns(list(dict.fromkeys(mapping.values())))
    rows = rows.rename_columns({own: column for column, own in mapping.items()})
    for column in mapping:
        if (missing := _first(pc.is_null(_arrow(rows, column)))) is not None:
            raise SourceError(f"{where}, row {missing}: `{mapping[column]}` is missing")
    for column in TEXTS:
        if column in mapping:
            rows = _cast(rows, column, TEXT, own=mapping[column], where=where, what="text")
    if "words" in mapping:
        rows = _cast(rows, "words", WORDS, own=mapping["words"], where=where, what="a list of words")
        _refuse_nulls(_arrow(rows, "words"), own=mapping["words"], where=where)
    if "tags" in mapping:
        rows = _named_tags(rows, own=mapping["tags"], names=tag_names, where=where)
    if "answers" in mapping:
        rows = checked_answers(rows, own=mapping["answers"], where=where)
    if "words" in mapping and "tags" in mapping:
        words, tags = _lengths(_arrow(rows, "words")), _lengths(_arrow(rows, "tags"))
        if (odd := np.flatnonzero(words != tags)).size:
            raise SourceError(f"{where}, row {odd[0]}: {words[odd[0]]} words but {tags[odd[0]]} tags")
    return rows


def tag_strings(rows: datasets.Dataset, *, column: str) -> set[str] | None:
    """The distinct tags of a column that spells them out, or None where it holds ids (or is no column of lists)."""
    feature = rows.features.get(column)
    if not (isinstance(feature, datasets.List | datasets.LargeList) and _is_string(feature.feature)):
        return None
    return {tag for tag in pc.unique(pc.list_flatten(_arrow(rows, column))).to_pylist() if tag is not None}


def ordered_tags(tags: set[str]) -> list[str]:
    """`O` first, the rest in alphabetical order."""
    return sorted(tags, key=lambda tag: (tag != "O", tag))


def _named_tags(rows: datasets.Dataset, *, own: str, names: Sequence[str] | None, where: str) -> datasets.Dataset:
    feature = rows.features["tags"]
    if not isinstance(feature, datasets.List | datasets.LargeList):
        raise SourceError(f"column {own!r} of {where} holds {_kind(feature)}, not a list of labels")
    array = _arrow(rows, "tags")
    _refuse_nulls(array, own=own, where=where)
    spelt = tag_strings(rows, column="tags")
    names = names or label_names(feature) or (ordered_tags(spelt) if spelt is not None else None)
    if names is None and not pa.types.is_integer(array.type.value_type):
        raise SourceError(f"column {own!r} of {where} holds {_kind(feature)}, not a list of labels")
    if names is None:
        raise SourceError(
            f"column {own!r} of {where} holds label ids without names: give them, in the order of the ids, "
            f'with `tag_names` in the data settings (tag_names = ["O", "B-PER", "I-PER", ...])'
        )
    flat, rows_of = pc.list_flatten(array), np.repeat(np.arange(len(rows)), _lengths(array))
    known = (
        pc.is_in(flat, pa.array(names))
        if spelt is not None
        else pc.and_(pc.greater_equal(flat, 0), pc.less(flat, len(names)))
    )
    if (bad := _first(pc.invert(known))) is not None:
        value = flat[bad].as_py()
        raise SourceError(
            f"{where}, row {rows_of[bad]}: label {value!r} in column {own!r} is "
            + (
                f"none of {', '.join(names)}"
                if spelt is not None
                else f"outside 0 to {len(names) - 1} ({', '.join(names)})"
            )
        )
    wanted = datasets.List(datasets.ClassLabel(names=list(names)))
    return rows if feature == wanted else rows.cast_column("tags", wanted)


def _cast(rows: datasets.Dataset, column: str, feature: Any, *, own: str, where: str, what: str) -> datasets.Dataset:
    has = rows.features[column]
    if has == feature:
        return rows
    is_list = isinstance(has, datasets.List | datasets.LargeList)
    wants_list = isinstance(feature, datasets.List)
    if is_list != wants_list or not _is_string(has.feature if is_list else has):
        raise SourceError(f"column {own!r} of {where} holds {_kind(has)}, not {what}")
    return rows.cast_column(column, feature)


def _is_string(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def _kind(feature: Any) -> str:
    if isinstance(feature, datasets.List | datasets.LargeList):
        return f"lists of {_kind(feature.feature)}"
    return str(getattr(feature, "dtype", type(feature).__name__))


def _refuse_nulls(array: pa.ChunkedArray, *, own: str, where: str) -> None:
    if (bad := _first(pc.is_null(pc.list_flatten(array)))) is not None:
        row = int(np.searchsorted(np.cumsum(_lengths(array)), bad, side="right"))
        raise SourceError(f"{where}, row {row}: an item of `{own}` is missing")


def _arrow(rows: datasets.Dataset, column: str) -> pa.ChunkedArray:
    return rows.with_format("arrow")[:].column(column)


def _lengths(array: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(pc.list_value_length(array), dtype=np.int64)


def _first(flags: pa.ChunkedArray) -> int | None:
    """Index of the first true value."""
    found = pc.index(flags, pa.scalar(True)).as_py()
    return None if found < 0 else int(found)
