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
        masks = [row.get("attention_mask") for row in rows]
        return [_kept(ints(row["input_ids"]), mask) for row, mask in zip(rows, masks, strict=True)]
    except NotChecked:
        found = []
        for batch in split.batches(4):
            if "input_ids" not in batch:
                raise NotChecked("batches have no input_ids") from None
            masks_ = batch.get("attention_mask")
            for index in range(len(batch["input_ids"])):
                found.append(_kept(ints(batch["input_ids"][index]), None if masks_ is None else masks_[index]))
        return found


def _kept(ids: list[int], mask: Any) -> list[int]:
    if mask is None or getattr(mask, "ndim", 1) != 1 or len(mask) != len(ids):
        return ids
    return [each for each, seen in zip(ids, ints(mask), strict=True) if seen]
