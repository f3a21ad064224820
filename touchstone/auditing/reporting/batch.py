"""The first rows of a training batch as tables: each token, its label, and what the loss does with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from touchstone.auditing.finding import Example
from touchstone.auditing.subject import IGNORED, Batch, Subject, ints

ROWS_SHOWN = 4
TOKENS_SHOWN = 512
WITHOUT_LABELS = ("token-classification", "masked-lm")
"""Tasks in which special tokens have no label. In the others, a label at an end of text is right."""
SEEN = {
    "supervised": "the loss asks for this label",
    "ignored": "no label: the loss does not see it",
    "special": "special token without a label",
    "padding": "padding without a label",
    "supervised special": "special token with a label",
    "supervised padding": "padding with a label",
}
"""The values of the column `seen`, and what each means."""


def tables(subject: Subject) -> Iterator[Example]:
    """Yield tables with the columns token, label and seen: one per row, two per row of an encoder-decoder.

    Raises:
        NotChecked: there is no batch, or its parts have no names.
    """
    batch = subject.need("train").batch()
    ids = batch["input_ids"]
    for row in range(min(ROWS_SHOWN, len(ids))):
        where = f"row {row} of the first training batch"
        inputs, labels = ints(ids[row]), _row(batch, "labels", row)
        mask = _row(batch, "attention_mask", row)
        if "decoder_input_ids" in batch or (labels is not None and _encodes(subject)):
            yield _example(subject, inputs, mask=mask, labels=None, caption=f"source, {where}")
            if labels is not None:
                yield _target(subject, batch, row, labels, caption=f"target, {where}")
        elif "start_positions" in batch and "end_positions" in batch:
            yield _answer(subject, batch, row, inputs, mask, caption=where)
        else:
            fits = labels is not None and len(labels) == len(inputs)
            yield _example(subject, inputs, mask=mask, labels=labels if fits else None, caption=where)


def _row(batch: Batch, name: str, row: int) -> list[int] | None:
    values = batch.get(name)
    if values is None or getattr(values, "ndim", 2) != 2:
        return None
    return ints(values[row])


def _encodes(subject: Subject) -> bool:
    return bool(getattr(getattr(subject.model, "config", None), "is_encoder_decoder", False))


def _example(
    subject: Subject, ids: list[int], *, mask: list[int] | None, labels: list[int] | None, caption: str
) -> Example:
    special = _marks(subject)
    pad = getattr(subject.tokenizer, "pad_token_id", None)
    mask = [int(each != pad) for each in ids] if mask is None else mask
    rows: list[tuple[str, str | None, str]] = []
    for place, text in enumerate(subject.token_texts(ids)[:TOKENS_SHOWN]):
        label = IGNORED if labels is None else labels[place]
        kind = "padding" if not mask[place] else "special" if ids[place] in special else ""
        if label != IGNORED and kind == "special" and subject.task not in WITHOUT_LABELS:
            kind = ""
        seen = "supervised" if label != IGNORED else "" if kind else "ignored"
        shown = None if labels is None else _label(subject, label)
        rows.append((text, shown, " ".join(filter(None, (seen, kind)))))
    return Example(("token", "label", "seen"), rows, caption=caption)


def _marks(subject: Subject) -> set[int]:
    """Return the ids of the special tokens that stand for no word: not the mask, and not the unknown token."""
    if subject.tokenizer is None:
        return set()
    words = {getattr(subject.tokenizer, f"{name}_token_id", None) for name in ("mask", "unk")}
    return set(subject.special_ids) - words


def _label(subject: Subject, label: int) -> str:
    """Return a label as text: a token for language models, else a name."""
    if label != IGNORED and subject.task.endswith("-lm"):
        return subject.token_texts([label])[0]
    return subject.label_text(label)


def _target(subject: Subject, batch: Batch, row: int, labels: list[int], *, caption: str) -> Example:
    """Return the labels as tokens, each under the token that the decoder reads before it."""
    reads = _row(batch, "decoder_input_ids", row)
    texts = subject.token_texts([max(label, 0) for label in labels])
    before = subject.token_texts(reads) if reads is not None and len(reads) == len(labels) else None
    rows: list[tuple[Any, ...]] = []
    for place, label in enumerate(labels[:TOKENS_SHOWN]):
        text = "-100" if label == IGNORED else texts[place]
        seen = "padding" if label == IGNORED else "supervised"
        rows.append((text, f"after {before[place]}" if before else None, seen))
    return Example(("token", "label", "seen"), rows, caption=caption)


def _answer(
    subject: Subject, batch: Batch, row: int, ids: list[int], mask: list[int] | None, *, caption: str
) -> Example:
    start, end = (int(batch[f"{side}_positions"][row]) for side in ("start", "end"))
    labels = [0 if start <= place <= end else IGNORED for place in range(len(ids))]
    plain = _example(subject, ids, mask=mask, labels=labels, caption=caption)
    rows = []
    for place, (text, _, seen) in enumerate(plain.rows):
        label = "start" if place == start else "end" if place == end else None
        rows.append((text, "start, end" if start == end == place else label, seen))
    return Example(plain.columns, rows, caption=caption)
