"""Token ids of a run's rows, as the collator receives them or from batches."""

from __future__ import annotations

from typing import Any

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.reading.pairs import rows_of_split
from touchstone.auditing.subject import Row, Split, Subject, ints

ROWS = 64


def splits_of(subject: Subject) -> list[Split]:
    found = [split for split in (subject.train, subject.evaluation) if split is not None]
    if not found:
        raise NotChecked("there is no data")
    return found


def tokenized_rows(subject: Subject, split: Split) -> list[Row]:
    """Return rows with token ids as the collator receives them."""

    def make() -> list[Row]:
        rows = rows_of_split(split, ROWS)
        if not rows or "input_ids" not in rows[0]:
            raise NotChecked(f"rows of the {split.name} data have no input_ids: they are tokenized in the collator")
        return rows

    return subject.once(f"rows of {split.name}", make)


def token_ids(subject: Subject, split: Split) -> list[list[int]]:
    """Return the token ids of some rows, from the rows or from batches, without padding."""
    try:
        rows = tokenized_rows(subject, split)
        return [ids for row in rows for ids in _texts(row["input_ids"], row.get("attention_mask"))]
    except NotChecked:
        return batch_ids(split)


def batch_ids(split: Split, *, padded: bool = False) -> list[list[int]]:
    """Return the token ids of the rows of some batches, without padding unless that is asked for."""
    found = []
    for batch in split.batches(4):
        if "input_ids" not in batch:
            raise NotChecked("batches have no input_ids")
        masks = None if padded else batch.get("attention_mask")
        for index, row in enumerate(batch["input_ids"]):
            found += _texts(row, None if masks is None else masks[index])
    return found


def _texts(ids: Any, mask: Any) -> list[list[int]]:
    """Return the ids of each text of a row: one, or several as in multiple choice."""
    if len(ids) and (isinstance(ids[0], (list, tuple)) or getattr(ids[0], "ndim", 0)):
        masks = [None] * len(ids) if mask is None else mask
        return [text for part, seen in zip(ids, masks, strict=True) for text in _texts(part, seen)]
    return [_kept(ints(ids), mask)]


def _kept(ids: list[int], mask: Any) -> list[int]:
    if mask is None or getattr(mask, "ndim", 1) != 1 or len(mask) != len(ids):
        return ids
    return [each for each, seen in zip(ids, ints(mask), strict=True) if seen]
