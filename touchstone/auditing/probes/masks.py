"""Probes of attention masks and padding."""

from __future__ import annotations

import inspect
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.observing.calls import logits_of
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.batches import batches_of, example_of, lists, padding, padding_or_none
from touchstone.auditing.subject import IGNORED, TASKS, Subject

PADDED = 0.5
"""A share of padding from which it is a warning: more than half of the work is for nothing."""


@probe(
    "mask-marks-padding",
    group="batches",
    says="The attention mask is 0 at padding, and nowhere else.",
    budget="fast",
)
def mask_marks_padding(subject: Subject) -> Finding:
    """Compare the attention mask with the padding tokens.

    Fault: Real tokens attend to padding, or are hidden from the model. What the model computes for a row then depends
    on the other rows of its batch.

    Causes: A collator of your own pads the mask with 1 or the padding id, pads it on another side than the ids, or
    leaves it out. Some models then assume that every token is real.

    Remedy: Use `tokenizer.pad(rows, return_tensors='pt')`, which pads ids and mask together. Otherwise pad
    `attention_mask` with 0, on the side of the ids.

    Warning: The mask is not that of the padding, but nothing proves harm: a causal model does not see padding at the
    right, a model may make a mask of its own, and rows may be padded with another id than the tokenizer's.
    """
    padded = attended = hidden = tokens = 0
    shown: Example | None = None
    missing = False
    for batch in batches_of(subject.need("train")):
        masks = lists(batch, "attention_mask")
        given = batch.get("attention_mask")
        if given is not None and masks is None:
            raise NotChecked(
                f"the attention mask has the shape {tuple(given.shape)}: it is more than a mask of padding"
            )
        for row, ids in enumerate(batch["input_ids"].tolist()):
            mask = [int(bool(each)) for each in masks[row]] if masks else [1] * len(ids)
            try:
                places = padding(subject, ids, mask)
            except NotChecked:
                if masks is not None:
                    raise
                continue
            missing |= masks is None and bool(places)
            padded += len(places)
            tokens += len(ids)
            seen = [place for place in places if mask[place]]
            unseen = [place for place, each in enumerate(mask) if not each and place not in places]
            attended += len(seen)
            hidden += len(unseen)
            if (seen or unseen) and shown is None:
                shown = example_of(subject, ids, sorted(seen + unseen), mask=mask)
    parts: dict[str, Any] = {"measured": {"attended": attended, "hidden": hidden}, "expected": 0, "example": shown}
    if hidden:
        return _hidden(subject, hidden, tokens, parts)
    if not attended:
        if not padded:
            return passed("the rows looked at have no padding, and all their tokens are seen")
        return passed(f"the mask is 0 at all {padded} padding tokens, and 1 at all {tokens - padded} others")
    if missing:
        message = f"rows are padded ({padded} of {tokens} tokens), and batches have no attention mask"
        change = "return attention_mask from the tokenizer and keep it in the collator"
    else:
        message = f"the attention mask is 1 at {attended} of {padded} padding tokens"
        change = "pad attention_mask with 0"
    if subject.task == "causal-lm" and not _left_padded(subject):
        return warn(message, cause=f"a causal model does not see padding at the right; still, {change}", **parts)
    if subject.task not in TASKS:
        return warn(
            message, cause=f"unless the model makes its own mask, real tokens attend to padding: {change}", **parts
        )
    if not _moves(subject):
        return warn(message, cause="the model's output does not depend on the mask: it makes one of its own", **parts)
    return fail(message, cause=f"real tokens attend to padding, so a row depends on its batch: {change}", **parts)


def _hidden(subject: Subject, hidden: int, tokens: int, parts: dict[str, Any]) -> Finding:
    """Judge a mask that hides tokens which are not the tokenizer's padding."""
    if parts["measured"]["attended"] and _inverted(subject):
        return fail(
            f"the attention mask is 0 at all {hidden} tokens, and 1 at all {parts['measured']['attended']} of padding",
            cause="the mask is inverted: models of transformers see the places where it is 1 (torch's "
            "key_padding_mask is the other way round)",
            **parts,
        )
    other: set[int] = set()
    only_ends = True
    pad = subject.need("tokenizer").pad_token_id
    for batch in batches_of(subject.need("train")):
        masks = lists(batch, "attention_mask") or []
        for ids, mask in zip(batch["input_ids"].tolist(), masks, strict=True):
            seen = [place for place, each in enumerate(mask) if each]
            outside = [place for place, each in enumerate(mask) if not each]
            other |= {ids[place] for place in outside} - {pad}
            only_ends &= bool(seen) and not any(seen[0] < place < seen[-1] for place in outside)
    if only_ends and len(other) == 1:
        token = other.pop()
        return warn(
            f"rows are padded with the id {token}, and the tokenizer's padding is {pad}",
            cause="the mask hides it, so the loss is right; code that looks for the padding token goes wrong",
            **parts,
        )
    if subject.task == "causal-lm" and not parts["measured"]["attended"]:
        return warn(
            f"the attention mask hides {hidden} of {tokens} tokens that are no padding",
            cause="right if later tokens must not see them; to leave tokens out of the loss, give them the label -100",
            **parts,
        )
    return fail(
        f"the attention mask hides {hidden} of {tokens} tokens that are no padding",
        cause="the model does not see them: take attention_mask from the tokenizer, and pad it on the side of the ids",
        **parts,
    )


def _inverted(subject: Subject) -> bool:
    """Tell whether the mask is 1 at padding and 0 at all other tokens, in every batch."""
    for batch in batches_of(subject.need("train")):
        for ids, mask in zip(batch["input_ids"].tolist(), lists(batch, "attention_mask") or [], strict=True):
            padded = padding(subject, ids)
            if any(bool(each) != (place in padded) for place, each in enumerate(mask)):
                return False
    return True


def _left_padded(subject: Subject) -> bool:
    for batch in batches_of(subject.need("train")):
        for ids in batch["input_ids"].tolist():
            if 0 in padding(subject, ids):
                return True
    return False


def _moves(subject: Subject) -> bool:
    """Tell whether the mask changes the model's output at real tokens. If the model cannot be run, it does."""
    import torch

    model = subject.model
    if model is None:
        return True
    accepted = inspect.signature(model.forward).parameters
    for batch in batches_of(subject.need("train")):
        rows = [padding(subject, ids) for ids in batch["input_ids"].tolist()]
        row = next(
            (row for row, places in enumerate(rows) if places and len(places) < len(batch["input_ids"][row])), None
        )
        if row is None:
            continue
        size = len(batch["input_ids"])
        one = {
            key: value[row : row + 1]
            for key, value in batch.items()
            if hasattr(value, "shape") and len(value.shape) and len(value) == size and key in accepted
        }
        right = torch.ones_like(one["input_ids"])
        right[0, sorted(rows[row])] = 0
        real = [place for place in range(right.shape[1]) if place not in rows[row]]
        try:
            with torch.no_grad():
                outputs = [subject.quiet_model(**each) for each in (one, {**one, "attention_mask": right})]
            pairs = [next(iter(logits_of(output).values())) for output in outputs]
        except Exception:
            return True
        if pairs[0].shape[1] != right.shape[1]:  # a decoder's output: its every position sees the source
            real = list(range(pairs[0].shape[1]))
        return bool((pairs[0][:, real] - pairs[1][:, real]).abs().max() > 0)
    return True


@probe(
    "little-padding",
    group="batches",
    says="Most positions of a batch are tokens of the text.",
    budget="fast",
)
def little_padding(subject: Subject) -> Finding:
    """Count padded and supervised positions, and rows that fill the longest length.

    Warning: More than half of the positions of the batches looked at are padding. The results are right, but most of
    the time and memory is spent on nothing.

    Remedy: Pad to the longest row of each batch: leave `padding='max_length'` out of the tokenizer call, and let
    `DataCollatorWithPadding` or its relatives pad. If rows differ much in length, group rows of like lengths.
    """
    tokens = padded = labelled = 0
    widths: set[int] = set()
    full = rows = 0
    for batch in batches_of(subject.need("train")):
        labels = lists(batch, "labels")
        widths.add(batch["input_ids"].shape[1])
        for row, ids in enumerate(batch["input_ids"].tolist()):
            places = padding_or_none(subject, ids)
            tokens += len(ids)
            padded += len(places)
            rows += 1
            full += not places
            labelled += sum(each != IGNORED for each in labels[row]) if labels else 0
    supervised = f"; {labelled / tokens:.0%} of the positions have labels" if labelled else ""
    message = f"{padded / tokens:.0%} of {tokens} positions are padding{supervised}"
    if padded > PADDED * tokens:
        how = (
            f"every batch is {widths.copy().pop()} tokens wide: pad to the longest row of a batch"
            if len(widths) == 1
            else ("group rows of like lengths")
        )
        return warn(message, cause=f"most of the work is done for padding: {how}", measured=padded / tokens)
    return passed(message, measured=padded / tokens)
