"""Probes of batches: which positions have labels, and which labels there are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.words import special_ids
from touchstone.auditing.subject import IGNORED, SEQ2SEQ, TASKS, UNKNOWN, Batch, Split, Subject, ints

BATCHES = 4
"""Batches that are looked at."""


def batches_of(split: Split) -> list[Batch]:
    """Return some batches, of the start and of the rest of the data, with `input_ids` of two dimensions.

    Raises:
        NotChecked: there are none.
    """
    found = split.observed[:BATCHES]
    if not found:
        size = max(1, min(split.batch_size, 16))
        try:
            count = len(split)
        except NotChecked:
            count = size * BATCHES  # a stream: its first rows
        starts = sorted({min(count - 1, count * step // BATCHES) for step in range(BATCHES)}) if count else []
        found = [split.batch(rows) for start in starts if (rows := split.rows(size, start=start))]
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
    twice = {getattr(tokenizer, f"{name}_token_id", None) for name in ("eos", "bos", "cls", "sep", "unk")}
    if pad in twice and mask is not None:
        for inner in (left - 1, right):
            if inner in places and mask[inner]:
                places.discard(inner)
    return places


def example_of(subject: Subject, ids: Sequence[int], marked: Sequence[int], **columns: Sequence[Any]) -> Example:
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
    """Look for labels on special tokens, which are no words and have no tag.

    Fault: The model is trained to tag tokens such as [CLS] and [SEP], which are no words. They count in the loss, and
    in a metric that drops only -100.

    Causes: The label of a token without a word is set to 0 (the tag O) instead of -100. Or labels are padded for the
    special tokens at both ends with the id of O.

    Remedy: Give every token whose `word_ids()` entry is None the label -100: `labels = [-100 if word is None else
    tags[word] for word in encoded.word_ids()]`.

    Warning: The special tokens have labels, but the model's own loss leaves them out, as a CRF with a mask does. Look
    whether the metric leaves them out too.
    """
    special = special_ids(subject.need("tokenizer"))
    wrong = []
    seen = rows = 0
    marked: list[tuple[Batch, list[list[int]]]] = []
    for batch in batches_of(subject.need("train")):
        hits = []
        masks = lists(batch, "attention_mask")
        for row, (ids, labels) in enumerate(zip(batch["input_ids"].tolist(), label_lists(batch), strict=True)):
            padded = padding_or_none(subject, ids)
            hidden = {place for place, each in enumerate(masks[row]) if not each} if masks else set()
            places = [place for place, each in enumerate(ids) if each in special and place not in padded | hidden]
            seen += len(places)
            rows += 1
            labelled = [place for place in places if labels[place] != IGNORED]
            hits.append(labelled)
            if labelled:
                wrong.append((ids, labels, labelled))
        marked.append((batch, hits))
    if not seen:
        raise NotChecked("the rows looked at hold no special tokens")
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
        "example": example_of(subject, ids, labelled, label=[subject.label_text(label) for label in labels]),
    }
    if not _counted(subject, *next((batch, hits) for batch, hits in marked if any(hits))):
        return warn(message, cause="the model's loss ignores them", **parts)
    return fail(
        message, cause="the loss and the metric count them as words: give special tokens the label -100", **parts
    )


def padding_or_none(subject: Subject, ids: Sequence[int]) -> set[int]:
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


def _not_misplaced(subject: Subject) -> None:
    """Leave it to another probe if all labels stand at wrong places, those of padding among them."""
    if subject.task != "masked-lm":
        _not_misaligned(subject)
        return
    from touchstone.auditing.reading.draws import labels_elsewhere

    if labels_elsewhere(subject):
        raise NotChecked("labels stand at tokens that were not chosen: see masks-labelled and masks-hide-tokens")


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
    """Look for labels on padding, such as zeros of a collator that pads labels like ids.

    Fault: Padding has labels and the loss counts them. The more padding a batch has, the more the model learns about
    nothing.

    Causes: A collator pads labels in the same way as ids, with 0 or the padding id. In masked language modelling,
    padding is chosen for masking like any token.

    Remedy: Pad labels with -100. `DataCollatorForTokenClassification(tokenizer)` does that; in a collator of your own,
    use `pad_sequence(labels, batch_first=True, padding_value=-100)`.

    Warning: The labels at padding do not change the model's loss. A metric may still count them.
    """
    seen = rows = 0
    wrong: list[tuple[list[int], list[int], list[int]]] = []
    first: tuple[Batch, list[list[int]]] | None = None
    for batch in batches_of(subject.need("train")):
        hits: list[list[int]] = []
        masks = lists(batch, "attention_mask")
        for row, (ids, labels) in enumerate(zip(batch["input_ids"].tolist(), label_lists(batch), strict=True)):
            padded = padding(subject, ids, masks[row] if masks else None)
            seen += len(padded)
            rows += 1
            hits.append([place for place in sorted(padded) if labels[place] != IGNORED])
            if hits[-1]:
                wrong.append((ids, labels, hits[-1]))
        if first is None and any(hits):
            first = batch, hits
    if first is None:
        return passed(f"{seen} padding tokens have no label" if seen else "the rows looked at have no padding")
    _not_misplaced(subject)
    ids, labels, places = wrong[0]
    found = sorted({labels[place] for place in places})
    message = (
        f"{sum(len(each) for *_, each in wrong)} of {seen} padding tokens have labels, in {len(wrong)} of {rows} rows"
    )
    names = {label: _label_name(subject, label) for label in {*labels, *found}}
    parts: dict[str, Any] = {
        "measured": sum(len(each) for *_, each in wrong),
        "expected": 0,
        "example": example_of(subject, ids, places, label=[names[label] for label in labels]),
    }
    if not _counted(subject, *first):
        return warn(message, cause="the model's loss ignores them; a metric may not", **parts)
    named = ", ".join(names[each] for each in found[:3])
    if subject.task == "masked-lm":
        cause = (
            f"labels at padding are {found[0]} ({named}), and the loss counts them: choose no padding tokens to be "
            "masked, and set labels to -100 there"
        )
    else:
        cause = (
            f"labels are padded with {found[0]} ({named}): the loss counts padding. Pad labels with -100, as "
            "DataCollatorForTokenClassification does"
        )
    return fail(message, cause=cause, **parts)


def _label_name(subject: Subject, label: int) -> str:
    """Return the name of a label: that of a class, or the token where labels are tokens."""
    if subject.task == "masked-lm" and label != IGNORED:
        return subject.token_texts([label])[0]
    return subject.label_text(label)


@probe(
    "rows-have-labels",
    group="batches",
    says="Every row has something to learn.",
    tasks=("token-classification", "causal-lm", *SEQ2SEQ),
    budget="fast",
)
def rows_have_labels(subject: Subject) -> Finding:
    """Count rows and batches all of whose labels are -100.

    Fault: More than half of the rows have nothing to learn. A batch of such rows alone has a loss of 0/0, which is
    nan.

    Causes: The labels were lost on the way: the prompt is longer than the maximal length, so that truncation leaves
    only masked tokens. Or a mask, a column name or a tag mapping does not match the data.

    Remedy: Print `[label for label in row['labels'] if label != -100]` of some rows before and after each step of
    preprocessing. Drop rows without a label, or truncate the prompt and not the answer.

    Warning: Some rows have no label. They cost time and teach nothing; filter them out.
    """
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
            shown = example_of(
                subject, ints(batch["input_ids"][row]), [], label=["-100"] * len(batch["input_ids"][row])
            )
    if not silent:
        return passed(f"each of {rows} rows has a label")
    parts: dict[str, Any] = {"measured": silent / rows, "expected": 0, "example": shown}
    message = f"{silent} of {rows} rows have no label but -100"
    if silent * 2 > rows:
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
    tasks=[task for task in (*TASKS, UNKNOWN) if task != "question-answering"],
    budget="fast",
)
def labels_in_range(subject: Subject) -> Finding:
    """Compare the labels with the number of the head's classes.

    Fault: The loss raises an error at labels that the head has no class for. On a GPU that is a device-side assert,
    far from the line at fault.

    Causes: The model was loaded without `num_labels`, so that the head has two classes. Or -1 stands for no label,
    where torch expects -100.

    Remedy: Load the head for the data: `from_pretrained(name, num_labels=len(names),
    id2label=dict(enumerate(names)))`. Replace -1 by -100.

    Warning: Labels are outside the head's classes, and the model's own loss accepts them. Make sure that it is meant.
    """
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
    """Return the number of the head's classes: the last dimension of its logits for one short row."""
    import torch

    model = subject.need("model")
    accepted = inspect.signature(model.forward).parameters
    batch = batches_of(subject.need("train"))[0]
    size = len(batch["input_ids"])
    inputs = {
        key: value[:1]
        for key, value in batch.items()
        if key in accepted and key != "labels" and len(getattr(value, "shape", ())) > 0 and len(value) == size
    }
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        inputs.setdefault("decoder_input_ids", inputs["input_ids"][:, :1])
    try:
        with torch.no_grad():
            output = subject.quiet_model(**inputs)
        classes = int((output["logits"] if isinstance(output, Mapping) else output[0]).shape[-1])
    except Exception as error:
        raise NotChecked(f"the number of classes is not known: the model raises {type(error).__name__}") from error
    if classes < 2:
        raise NotChecked("the head has one output: it is a regression")
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
        inputs = {key: value for key, value in batch.items() if key in accepted}
        try:
            with torch.no_grad():
                subject.quiet_model(**{**inputs, "labels": batch["labels"].clamp(0, classes - 1)})
        except Exception:
            return ""
        try:
            with torch.no_grad():
                subject.quiet_model(**inputs)
        except Exception as error:
            return f"{type(error).__name__} ({str(error).splitlines()[0]})" if str(error) else type(error).__name__
    return ""
