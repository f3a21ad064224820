"""Probes of batches: which positions have labels, what is padded, what the collator does."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.subject import IGNORED, SEQ2SEQ, TASKS, Batch, Split, Subject, ints
from touchstone.auditing.words import special_ids

ROWS_SHOWN = 4
BATCHES = 4
"""Batches that are looked at."""
SPANS = ("start_positions", "end_positions")
PADDED = 0.5
"""A share of padding from which it is a warning: more than half of the work is for nothing."""


# The table of a batch -------------------------------------------------------------------------------------------------


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
        cells = [*zip(range(len(ids)), texts, mask, wanted, nexts, strict=False)]
        return Example(("position", "token", "mask", "label", "the loss wants next"), cells, caption=name)
    return Example(
        ("position", "token", "mask", "label"), [*zip(range(len(ids)), texts, mask, wanted, strict=False)], caption=name
    )


# Batches --------------------------------------------------------------------------------------------------------------


def batches_of(split: Split) -> list[Batch]:
    """Return some batches, of the start and of the rest of the data, with `input_ids` of two dimensions.

    Raises:
        NotChecked: there are none.
    """
    found = split.observed[:BATCHES]
    if not found:
        size = max(1, min(split.batch_size, 16))
        count = len(split)
        starts = sorted({min(count - 1, count * step // BATCHES) for step in range(BATCHES)}) if count else []
        found = [split.batch(split.rows(size, start=start)) for start in starts]
    found = [each for each in found if len(getattr(each.get("input_ids"), "shape", ())) == 2]
    if not found:
        raise NotChecked("batches have no input_ids of the shape (rows, tokens)")
    return found


def lists(batch: Batch, name: str) -> list[list[Any]] | None:
    """Return a part of a batch as lists of numbers, or None if it does not have the shape of the tokens."""
    value = batch.get(name)
    if value is None or tuple(getattr(value, "shape", ())) != tuple(batch["input_ids"].shape):
        return None
    rows: list[list[Any]] = value.tolist()
    return rows


def label_lists(batch: Batch) -> list[list[int]]:
    """Return the labels of a batch, one per token.

    Raises:
        NotChecked: there are none, or they are no numbers of classes.
    """
    if "labels" not in batch:
        raise NotChecked("batches have no labels")
    if str(getattr(batch["labels"], "dtype", "")).startswith("torch.float"):
        raise NotChecked("the labels are real numbers, not ids of classes")
    found = lists(batch, "labels")
    if found is None:
        raise NotChecked("there is not one label per token")
    return found


def padding(subject: Subject, ids: Sequence[int], mask: Sequence[int] | None = None) -> set[int]:
    """Return the positions of a row that are padding: the runs of the padding token at its ends.

    Where the padding token also ends a text (as with GPT-2), the token at the inner end of a run is no padding if the
    mask shows it.
    """
    tokenizer = subject.need("tokenizer")
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None:
        raise NotChecked("the tokenizer has no padding token")
    size = len(ids)
    left = next((place for place, each in enumerate(ids) if each != pad), size)
    right = next((place for place in range(size, 0, -1) if ids[place - 1] != pad), 0)
    places = set(range(left)) | set(range(right, size))
    twice = {getattr(tokenizer, f"{name}_token_id", None) for name in ("eos", "bos", "cls", "sep")}
    if pad in twice and mask is not None:
        for inner in (left - 1, right):
            if inner in places and mask[inner]:
                places.discard(inner)
    return places


def _example(subject: Subject, ids: Sequence[int], marked: Sequence[int], **columns: Sequence[Any]) -> Example:
    cells = [*zip(range(len(ids)), subject.token_texts(ids), *columns.values(), strict=False)]
    return Example(("position", "token", *columns), cells, marked=marked, caption="a row of a training batch")


# Labels ---------------------------------------------------------------------------------------------------------------


@probe(
    "special-tokens-unlabelled",
    group="batches",
    says="Special tokens that are no words have no label.",
    tasks=("token-classification",),
    budget="fast",
)
def special_tokens_unlabelled(subject: Subject) -> Finding:
    """Look for labels on special tokens, which are no words and have no tag."""
    special = special_ids(subject.need("tokenizer"))
    wrong = []
    seen = rows = 0
    marked: list[tuple[Batch, list[list[int]]]] = []
    for batch in batches_of(subject.need("train")):
        hits = []
        masks = lists(batch, "attention_mask")
        for row, (ids, labels) in enumerate(zip(batch["input_ids"].tolist(), label_lists(batch), strict=True)):
            padded = _padding_or_none(subject, ids)
            hidden = {place for place, each in enumerate(masks[row]) if not each} if masks else set()
            places = [place for place, each in enumerate(ids) if each in special and place not in padded | hidden]
            seen += len(places)
            rows += 1
            labelled = [place for place in places if labels[place] != IGNORED]
            hits.append(labelled)
            if labelled:
                wrong.append((ids, labels, labelled))
        marked.append((batch, hits))
    if not wrong:
        return passed(f"{seen} special tokens have no label")
    _not_misaligned(subject)
    ids, labels, labelled = wrong[0]
    message = (
        f"{sum(len(each) for *_, each in wrong)} of {seen} special tokens have labels, in {len(wrong)} of {rows} rows"
    )
    parts: dict[str, Any] = {
        "measured": sum(len(each) for *_, each in wrong),
        "expected": 0,
        "example": _example(subject, ids, labelled, label=[subject.label_text(label) for label in labels]),
    }
    if not _counted(subject, *next((batch, hits) for batch, hits in marked if any(hits))):
        return warn(message, cause="the model's loss ignores them", **parts)
    return fail(
        message, cause="the loss and the metric count them as words: give special tokens the label -100", **parts
    )


def _padding_or_none(subject: Subject, ids: Sequence[int]) -> set[int]:
    try:
        return padding(subject, ids)
    except NotChecked:
        return set()


def _not_misaligned(subject: Subject) -> None:
    """Leave it to the probe of alignment if the labels are those of other words altogether."""
    from touchstone.auditing.probes.tags import labels_follow_tags

    try:
        shifted = labels_follow_tags(subject).outcome == "fail"
    except NotChecked:
        return
    if shifted:
        raise NotChecked("the labels are not those of the words: see labels-follow-tags")


def _counted(subject: Subject, batch: Batch, hits: Sequence[Sequence[int]]) -> bool:
    """Tell whether the model's loss depends on the labels at some positions. If it cannot be run, it does."""
    import torch

    model = subject.model
    if model is None:
        return True
    labels = batch["labels"].clone()
    for row, places in enumerate(hits):
        for place in places:
            labels[row, place] = IGNORED
    accepted = inspect.signature(model.forward).parameters
    any_name = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in accepted.values())
    inputs = {key: value for key, value in batch.items() if key in accepted or any_name}
    losses = []
    try:
        with torch.no_grad():
            for each in (batch["labels"], labels):
                output = subject.quiet_model(**{**inputs, "labels": each})
                loss = output["loss"] if isinstance(output, Mapping) else output[0]
                losses.append(float(loss))
    except Exception:
        return True
    return losses[0] != losses[1]


@probe(
    "padding-unlabelled",
    group="batches",
    says="Padding has no label.",
    tasks=("token-classification", "masked-lm"),
    budget="fast",
)
def padding_unlabelled(subject: Subject) -> Finding:
    """Look for labels on padding, such as zeros of a collator that pads labels like ids."""
    seen = rows = 0
    wrong: list[tuple[list[int], list[int], list[int]]] = []
    first: tuple[Batch, list[list[int]]] | None = None
    for batch in batches_of(subject.need("train")):
        hits: list[list[int]] = []
        for ids, labels in zip(batch["input_ids"].tolist(), label_lists(batch), strict=True):
            padded = padding(subject, ids)
            seen += len(padded)
            rows += 1
            hits.append([place for place in sorted(padded) if labels[place] != IGNORED])
            if hits[-1]:
                wrong.append((ids, labels, hits[-1]))
        if first is None and any(hits):
            first = batch, hits
    if first is None:
        return passed(f"{seen} padding tokens have no label" if seen else "the rows looked at have no padding")
    ids, labels, places = wrong[0]
    found = sorted({labels[place] for place in places})
    message = (
        f"{sum(len(each) for *_, each in wrong)} of {seen} padding tokens have labels, in {len(wrong)} of {rows} rows"
    )
    named = ", ".join(subject.label_text(each) for each in found[:3])
    parts: dict[str, Any] = {
        "measured": sum(len(each) for *_, each in wrong),
        "expected": 0,
        "example": _example(subject, ids, places, label=[subject.label_text(label) for label in labels]),
    }
    if not _counted(subject, *first):
        return warn(message, cause="the model's loss ignores them; a metric may not", **parts)
    return fail(
        message,
        cause=f"labels are padded with {found[0]} ({named}): the loss counts padding. Pad labels with -100, for example "
        "with DataCollatorForTokenClassification",
        **parts,
    )


@probe(
    "rows-have-labels",
    group="batches",
    says="Every row has something to learn.",
    tasks=("token-classification", "causal-lm", *SEQ2SEQ),
    budget="fast",
)
def rows_have_labels(subject: Subject) -> Finding:
    """Count rows and batches all of whose labels are -100."""
    rows = silent = lost = 0
    shown: Example | None = None
    found = batches_of(subject.need("train"))
    for batch in found:
        labels = batch.get("labels")
        if len(getattr(labels, "shape", ())) != 2 or labels is None or labels.dtype.is_floating_point:
            raise NotChecked("the labels are not ids of the shape (rows, tokens)")
        empty = [all(each == IGNORED for each in row) for row in labels.tolist()]
        rows += len(empty)
        silent += sum(empty)
        lost += all(empty)
        if any(empty) and shown is None:
            row = empty.index(True)
            shown = _example(subject, ints(batch["input_ids"][row]), [], label=["-100"] * len(batch["input_ids"][row]))
    if not silent:
        return passed(f"each of {rows} rows has a label")
    parts: dict[str, Any] = {"measured": silent / rows, "expected": 0, "example": shown}
    message = f"{silent} of {rows} rows have no label but -100"
    if lost:
        return fail(
            message,
            cause=f"{lost} of {len(found)} batches have no label at all: their loss is 0/0. The labels were lost, for "
            "example where they are masked or truncated",
            **parts,
        )
    return warn(message, cause="they are computed for nothing: truncation or a mask took all their labels", **parts)


@probe(
    "labels-in-range",
    group="batches",
    says="Every label is a class of the head, or -100.",
    budget="fast",
)
def labels_in_range(subject: Subject) -> Finding:
    """Compare the labels with the number of the head's classes."""
    classes = _classes(subject)
    seen: set[int] = set()
    for batch in batches_of(subject.need("train")):
        labels = batch.get("labels")
        if labels is None:
            raise NotChecked("batches have no labels")
        if labels.dtype.is_floating_point or (len(labels.shape) == 3 and labels.shape[-1] == classes):
            return passed("the labels are given as one number per class")
        seen |= set(labels.flatten().tolist())
    used = seen - {IGNORED}
    odd = sorted(each for each in used if not 0 <= each < classes)
    if not odd:
        return passed(f"{len(used)} labels are used, all of the {classes} classes of the head or -100")
    rejects = _rejects(subject)
    message = f"labels {', '.join(map(str, odd[:5]))} are none of the {classes} classes of the head"
    if rejects:
        change = (
            f"load the model with num_labels={max(odd) + 1}, or with id2label="
            if odd[-1] >= classes
            else "use -100 for no label"
        )
        return fail(message, cause=f"the loss raises {rejects} on them: {change}", measured=odd[:20], expected=classes)
    return warn(message, cause="the model's own loss accepts them", measured=odd[:20], expected=classes)


def _classes(subject: Subject) -> int:
    config = getattr(subject.need("model"), "config", None)
    if subject.task == "token-classification" or subject.task not in TASKS:
        classes = getattr(config, "num_labels", None)
    else:
        embedding = getattr(subject.model, "get_output_embeddings", lambda: None)()
        weight = getattr(embedding, "weight", None)
        classes = len(weight) if weight is not None else getattr(config, "vocab_size", None)
    if not isinstance(classes, int) or classes < 2:
        raise NotChecked("the number of the head's classes is not known")
    return classes


def _rejects(subject: Subject) -> str:
    """Return the error that the model raises on a batch with odd labels, or an empty string."""
    import torch

    classes = _classes(subject)
    for batch in batches_of(subject.need("train")):
        used = set(batch["labels"].flatten().tolist()) - {IGNORED}
        if all(0 <= each < classes for each in used):
            continue
        accepted = inspect.signature(subject.need("model").forward).parameters
        try:
            with torch.no_grad():
                subject.quiet_model(**{key: value for key, value in batch.items() if key in accepted})
        except Exception as error:
            return f"{type(error).__name__} ({str(error).splitlines()[0]})" if str(error) else type(error).__name__
    return ""


# Masks ----------------------------------------------------------------------------------------------------------------


@probe(
    "mask-marks-padding",
    group="batches",
    says="The attention mask is 0 at padding, and nowhere else.",
    budget="fast",
)
def mask_marks_padding(subject: Subject) -> Finding:
    """Compare the attention mask with the padding tokens."""
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
                shown = _example(subject, ids, sorted(seen + unseen), mask=mask)
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
    return fail(
        f"the attention mask hides {hidden} of {tokens} tokens that are no padding",
        cause="the model does not see them: take attention_mask from the tokenizer, and pad it on the side of the ids",
        **parts,
    )


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
            pairs = [_logits(output) for output in outputs]
        except Exception:
            return True
        if pairs[0].shape[1] != right.shape[1]:  # a decoder's output: its every position sees the source
            real = list(range(pairs[0].shape[1]))
        return bool((pairs[0][:, real] - pairs[1][:, real]).abs().max() > 0)
    return True


def _logits(output: Any) -> Any:
    for name in ("logits", "start_logits"):
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if found is not None:
            return found
    return output[-1]


@probe(
    "little-padding",
    group="batches",
    says="Most positions of a batch are tokens of the text.",
    budget="fast",
)
def little_padding(subject: Subject) -> Finding:
    """Count padded and supervised positions, and rows that fill the longest length."""
    tokens = padded = labelled = 0
    widths: set[int] = set()
    full = rows = 0
    for batch in batches_of(subject.need("train")):
        labels = lists(batch, "labels")
        widths.add(batch["input_ids"].shape[1])
        for row, ids in enumerate(batch["input_ids"].tolist()):
            places = _padding_or_none(subject, ids)
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


# The collator ---------------------------------------------------------------------------------------------------------


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the random generators. The runner of probes restores them."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    yield


def equal(first: Any, second: Any) -> bool:
    """Tell whether two nested values are equal, whatever their types."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if hasattr(first, "tolist") or hasattr(second, "tolist"):
        first = first.tolist() if hasattr(first, "tolist") else first
        second = second.tolist() if hasattr(second, "tolist") else second
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second) or (first != first and second != second)


@probe(
    "collator-keeps-its-rows",
    group="batches",
    says="The collator does not change the rows it is given.",
    budget="fast",
)
def collator_keeps_its_rows(subject: Subject) -> Finding:
    """Collate copies of rows, and compare the copies with the rows."""
    train = subject.need("train")
    if train.collate is None:
        raise NotChecked("there is no collator: pass collator=")
    rows = copy.deepcopy(_plain_rows(train))
    given = copy.deepcopy(rows)
    with _seeded(0):
        train.collate(given)
    changed = sorted({name for row, after in zip(rows, given, strict=True) for name in _changed(row, after)})
    if not changed:
        return passed("the collator leaves its rows as they are")
    which = ", ".join(changed)
    where = f" ({subject.where['collator']})" if subject.where.get("collator") else ""
    if not _lasting(train, changed):
        return warn(
            f"the collator changes {which} of its rows",
            cause=f"harmless here, because the data set makes its rows anew each time; copy them all the same{where}",
        )
    with _seeded(0):
        fresh = train.collate(copy.deepcopy(rows))
    try:
        with _seeded(0):
            again = train.collate(given)
        same = equal(_plain(fresh), _plain(again))
        how = "gets another batch of the same rows"
    except Exception as error:
        same, how = False, f"raises {type(error).__name__} on the same rows"
    message = f"the collator changes {which} of the rows of the data set"
    if same:
        return warn(message, cause=f"the next epoch gets the same batches all the same; copy the rows{where}")
    return fail(message, cause=f"the data are kept in memory, so the second epoch {how}: copy the rows first{where}")


def _plain(batch: Any) -> Any:
    return dict(batch) if isinstance(batch, Mapping) else batch


def _plain_rows(split: Split) -> list[Any]:
    """Return rows as the collator receives them, dicts or not."""
    count = min(len(split), max(2, min(split.batch_size, 8)))
    if split.columns is None:
        return [split.dataset[index] for index in range(count)]
    return list(split.rows(count))


def _changed(before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from (str(key) for key in {*before, *after} if key not in before or key not in after)
        yield from (str(key) for key in before if key in after and not equal(before[key], after[key]))
    elif not equal(before, after):
        yield "the values"


def _lasting(split: Split, names: Sequence[str]) -> bool:
    """Tell whether a change of a row stays in the data set: it returns the same object twice."""
    first, second = split.dataset[0], split.dataset[0]
    if first is second and split.columns is None:
        return True
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        kept = [name for name in names if name in first and first[name] is second.get(name)]
        return any(isinstance(first[name], (list, dict)) or hasattr(first[name], "fill_") for name in kept)
    return False


@probe(
    "collator-repeats-itself",
    group="batches",
    says="The same rows give the same batch, unless the collator draws at random on purpose.",
    tasks=[task for task in TASKS if task != "masked-lm"],
    budget="fast",
)
def collator_repeats_itself(subject: Subject) -> Finding:
    """Collate the same rows three times, with two seeds."""
    train = subject.need("train")
    if train.collate is None:
        raise NotChecked("there is no collator: pass collator=")
    rows = copy.deepcopy(_plain_rows(train))
    made = []
    for seed in (0, 0, 1):
        with _seeded(seed):
            made.append(_plain(train.collate(copy.deepcopy(rows))))
    if not equal(made[0], made[1]):
        return warn(
            "the collator makes different batches of the same rows, with the same seed",
            cause="it draws from a generator of its own or keeps a state: runs of one seed differ",
        )
    if not equal(made[0], made[2]):
        return warn("the collator draws at random", cause="right if it is meant to augment the data")
    return passed("the collator makes the same batch of the same rows")


@probe(
    "columns-reach-the-model",
    group="batches",
    says="What the rows hold for the model is in the batch.",
    budget="fast",
)
def columns_reach_the_model(subject: Subject) -> Finding:
    """Look for columns that the model takes, that differ from row to row or from token to token, and that are dropped."""
    train = subject.need("train")
    accepted = inspect.signature(subject.need("model").forward).parameters
    rows = [train.dataset[index] for index in range(min(len(train), 8))]
    if not rows or not isinstance(rows[0], Mapping):
        raise NotChecked("the rows are no dicts of columns")
    batch = train.batch()
    lost = []
    for name in rows[0]:
        if name not in accepted or name in batch or name == "attention_mask":
            continue
        values = {each for row in rows for each in _flat(row[name])}
        if len(values) > 1:
            lost.append(name)
    if lost:
        return warn(
            f"{', '.join(lost)}: in the rows, taken by the model, and not in the batch",
            cause="the collator drops them, and the model uses its default instead",
        )
    return passed("every column that the model takes is in the batch")


def _flat(value: Any) -> list[Any]:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, (list, tuple)):
        return [inner for each in value for inner in _flat(each)]
    return [value]
