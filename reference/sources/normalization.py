"""Turn the columns of a data set into the columns of the contract, and check every row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from touchstone.sources.source import SourceError

ANSWERS = {"text": datasets.List(datasets.Value("string")), "answer_start": datasets.List(datasets.Value("int64"))}
"""The type of the column `answers`, as in SQuAD: texts, and the character of the context that each begins at."""
WORDS = datasets.List(datasets.Value("string"))
TEXT = datasets.Value("string")
TEXTS = ("text", "code", "source", "target", "document", "summary", "question", "context")
"""Contract columns with one text in each row."""


def label_names(feature: Any) -> list[str] | None:
    """Return the label names of a column's feature, or None if it has no names."""
    inner = getattr(feature, "feature", feature)
    return list(inner.names) if isinstance(inner, datasets.ClassLabel) else None


def column_names(rows: datasets.Dataset) -> list[str]:
    """Return the columns, followed by the fields of columns that have fields: `translation`, `translation.en`."""
    return list(dict.fromkeys([*rows.column_names, *rows.select(range(0)).flatten().column_names]))


def contract_columns(
    rows: datasets.Dataset, *, mapping: Mapping[str, str], tag_names: Sequence[str] | None, where: str
) -> datasets.Dataset:
    """Return `rows` with exactly the columns in `mapping`, under the names of the contract.

    `words` becomes lists of strings, `tags` lists of `ClassLabel`, every column in `TEXTS` strings, and `answers` has
    the type `ANSWERS`. Other columns keep their type.

    Args:
        rows: the data set with its own column names.
        mapping: contract column to data set column. `translation.en` is the field `en` of the column `translation`,
            unless a column has that very name.
        tag_names: names of the label ids, or None to take them from the data.
        where: name of the data set and split, for messages.

    Raises:
        SourceError: a column or field is missing or has another type, a value is missing, a label is not among the
            names, words and tags differ in number, or an answer is not in its context at its start. The message gives
            the row and the value.
    """
    there = column_names(rows)
    for column, own in mapping.items():
        if own not in there:
            raise SourceError(
                f"{where} has no column {own!r} (for `{column}`): it has {', '.join(there)}. "
                f"Name the right one with `columns` in the data settings"
            )
    if fields := list(dict.fromkeys(own for own in mapping.values() if own not in rows.column_names)):
        # The fields are added and the columns stay, so that `answers` remains one column.
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
        rows = _checked_answers(rows, own=mapping["answers"], where=where)
    if "words" in mapping and "tags" in mapping:
        words, tags = _lengths(_arrow(rows, "words")), _lengths(_arrow(rows, "tags"))
        if (odd := np.flatnonzero(words != tags)).size:
            raise SourceError(f"{where}, row {odd[0]}: {words[odd[0]]} words but {tags[odd[0]]} tags")
    return rows


def tag_strings(rows: datasets.Dataset, *, column: str) -> set[str] | None:
    """Return the distinct tags of a column of tag strings, or None if it holds ids or does not hold lists."""
    feature = rows.features.get(column)
    if not (isinstance(feature, datasets.List | datasets.LargeList) and _is_string(feature.feature)):
        return None
    return {tag for tag in pc.unique(pc.list_flatten(_arrow(rows, column))).to_pylist() if tag is not None}


def ordered_tags(tags: set[str]) -> list[str]:
    """Sort tags: `O` first, the rest in alphabetical order."""
    return sorted(tags, key=lambda tag: (tag != "O", tag))


def fingerprint(rows: datasets.Dataset) -> str:
    """Return the SHA-256, in hexadecimal, of the content: column names, label names and values in order.

    It is the same on every machine and with every version of `datasets`, whose own `_fingerprint` depends on how the
    data was made.
    """
    columns = sorted(rows.column_names)
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=repr)
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")

    add({"rows": len(rows), "columns": {column: label_names(rows.features[column]) for column in columns}})
    for batch in rows.with_format(None).iter(batch_size=1000):
        for row in zip(*(batch[column] for column in columns), strict=True):
            add(row)
    return digest.hexdigest()


def _named_tags(rows: datasets.Dataset, *, own: str, names: Sequence[str] | None, where: str) -> datasets.Dataset:
    feature = rows.features["tags"]
    if not isinstance(feature, datasets.List | datasets.LargeList):
        raise SourceError(f"column {own!r} of {where} holds {_kind(feature)}, not a list of labels")
    array = _arrow(rows, "tags")
    _refuse_nulls(array, own=own, where=where)
    strings = tag_strings(rows, column="tags")
    names = names or label_names(feature) or (ordered_tags(strings) if strings is not None else None)
    if names is None and not pa.types.is_integer(array.type.value_type):
        raise SourceError(f"column {own!r} of {where} holds {_kind(feature)}, not a list of labels")
    if names is None:
        raise SourceError(
            f"column {own!r} of {where} holds label ids without names: list the names in the order of the ids "
            f'with `tag_names` in the data settings (tag_names = ["O", "B-PER", "I-PER", ...])'
        )
    flat, rows_of = pc.list_flatten(array), np.repeat(np.arange(len(rows)), _lengths(array))
    known = (
        pc.is_in(flat, pa.array(names))
        if strings is not None
        else pc.and_(pc.greater_equal(flat, 0), pc.less(flat, len(names)))
    )
    if (bad := _first(pc.invert(known))) is not None:
        value = flat[bad].as_py()
        raise SourceError(
            f"{where}, row {rows_of[bad]}: label {value!r} in column {own!r} is "
            + (
                f"not one of {', '.join(names)}"
                if strings is not None
                else f"outside 0 to {len(names) - 1} ({', '.join(names)})"
            )
        )
    wanted = datasets.List(datasets.ClassLabel(names=list(names)))
    return rows if feature == wanted else rows.cast_column("tags", wanted)


def _checked_answers(rows: datasets.Dataset, *, own: str, where: str) -> datasets.Dataset:
    """Return `rows` with `answers` in the type `ANSWERS`. Other fields of the column are dropped.

    Args:
        rows: has the column `answers`, and may have `context`.
        own: the data set's name of the column, for messages.
        where: name of the data set and split, for messages.

    Raises:
        SourceError: the column has another type, texts and starts differ in number, an answer is empty, or an answer
            is not in its context at its start.
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
            raise SourceError(f"{where} has the answer {text!r} at {start}: give a text and a start of 0 or more")
        if context is not None and (there := context[start : start + len(text)]) != text:
            raise SourceError(
                f"{where} has the answer {text!r} at {start}, but the context has {there!r} there: count characters "
                f"(not bytes) from 0"
            )


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
        raise SourceError(f"{where}, row {row}: a value in `{own}` is missing")


def _arrow(rows: datasets.Dataset, column: str) -> pa.ChunkedArray:
    return rows.with_format("arrow")[:].column(column)


def _lengths(array: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(pc.list_value_length(array), dtype=np.int64)


def _first(flags: pa.ChunkedArray) -> int | None:
    """Return the index of the first true value, or None."""
    found = pc.index(flags, pa.scalar(True)).as_py()
    return None if found < 0 else int(found)
