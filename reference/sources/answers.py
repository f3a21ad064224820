"""The column `answers` of extractive question answering, as in SQuAD: texts, and where each begins in its context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets

from reference.sources.source import SourceError

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
