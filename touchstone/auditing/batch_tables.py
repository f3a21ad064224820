"""Show a batch as tables: tokens, masks, labels, and what the loss compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from touchstone.auditing.finding import Example
from touchstone.auditing.subject import IGNORED, SEQ2SEQ, Subject, ints

ROWS_SHOWN = 4
SPANS = ("start_positions", "end_positions")


def tables(subject: Subject) -> Iterator[Example]:
    """Yield one table per row of the first training batch: tokens, masks, labels, and what the loss compares."""
    if subject.train is None:
        return
    batch = {key: value for key, value in subject.train.batch().items() if hasattr(value, "tolist")}
    if "input_ids" not in batch:
        return
    for row in range(min(ROWS_SHOWN, len(batch["input_ids"]))):
        parts = {key: value[row].tolist() for key, value in batch.items() if len(value.shape) and len(value) > row}
        name = f"row {row} of the first training batch"
        if subject.task in SEQ2SEQ and isinstance(parts.get("labels"), list):
            yield _source_table(subject, parts, name)
            yield _target_table(subject, parts, name)
        elif all(isinstance(parts.get(each), int) for each in SPANS):
            yield _span_table(subject, parts, name)
        else:
            yield _label_table(subject, parts, name)


def _masks(parts: Mapping[str, Any]) -> list[int]:
    mask = parts.get("attention_mask")
    flat = isinstance(mask, list) and all(not isinstance(each, list) for each in mask)
    return [int(each) for each in mask or ()] if flat else [1] * len(parts["input_ids"])


def _source_table(subject: Subject, parts: Mapping[str, Any], name: str) -> Example:
    ids = ints(parts["input_ids"])
    cells = [*zip(range(len(ids)), subject.token_texts(ids), _masks(parts), strict=False)]
    return Example(("position", "token", "mask"), cells, caption=f"{name}, source")


def _target_table(subject: Subject, parts: Mapping[str, Any], name: str) -> Example:
    labels = ints(parts["labels"])
    config = getattr(subject.model, "config", None)
    start = getattr(config, "decoder_start_token_id", None)
    # A model shifts labels to the right to make its decoder's input, unless the batch holds that input already.
    given = parts.get("decoder_input_ids")
    if given is None:
        pad = getattr(config, "pad_token_id", None)
        given = [start if start is not None else IGNORED, *labels[:-1]]
        given = [pad if each == IGNORED and pad is not None else each for each in given]
    inputs, wanted = subject.token_texts(given), _token_or_ignored(subject, labels)
    cells = [*zip(range(len(labels)), inputs, wanted, strict=False)]
    return Example(("position", "decoder input", "label"), cells, caption=f"{name}, target")


def _token_or_ignored(subject: Subject, labels: Sequence[int]) -> list[str]:
    texts = subject.token_texts(labels)
    return [str(IGNORED) if label == IGNORED else text for label, text in zip(labels, texts, strict=True)]


def _span_table(subject: Subject, parts: Mapping[str, Any], name: str) -> Example:
    ids = ints(parts["input_ids"])
    start, end = (int(parts[each]) for each in SPANS)
    marks = [
        "start" * (place == start) + " " * (start == end == place) + "end" * (place == end)
        for place, _ in enumerate(ids)
    ]
    cells = [*zip(range(len(ids)), subject.token_texts(ids), _masks(parts), marks, strict=False)]
    inside = [place for place in range(len(ids)) if start <= place <= end]
    return Example(("position", "token", "mask", "answer"), cells, marked=inside, caption=name)


def _label_table(subject: Subject, parts: Mapping[str, Any], name: str) -> Example:
    ids, mask = ints(parts["input_ids"]), _masks(parts)
    texts = subject.token_texts(ids)
    labels = parts.get("labels")
    if not isinstance(labels, list) or len(labels) != len(ids) or any(not isinstance(each, int) for each in labels):
        shown = f"{name}: label {labels}" if labels is not None else name
        return Example(("position", "token", "mask"), [*zip(range(len(ids)), texts, mask, strict=False)], caption=shown)
    if subject.task == "token-classification":
        cells = [*zip(range(len(ids)), texts, mask, map(subject.label_text, labels), strict=False)]
        return Example(("position", "token", "mask", "label"), cells, caption=name)
    wanted = _token_or_ignored(subject, labels)
    if subject.task == "causal-lm":
        # The model compares the logits of a position with the label of the next one.
        nexts = [*wanted[1:], ""]
        shifted = [*zip(range(len(ids)), texts, mask, wanted, nexts, strict=False)]
        return Example(("position", "token", "mask", "label", "the loss wants next"), shifted, caption=name)
    return Example(
        ("position", "token", "mask", "label"), [*zip(range(len(ids)), texts, mask, wanted, strict=False)], caption=name
    )
