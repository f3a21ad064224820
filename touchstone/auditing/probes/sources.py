"""Probes of translation and summarization: sources, and sources beside their targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.pairs import loss_of, place_of
from touchstone.auditing.reading.targets import SourceAndLabels, body_of, first_batch, target_column, targets_of
from touchstone.auditing.subject import IGNORED, SEQ2SEQ, Subject, ints

GROUP = "translation and summarization"
FEW = 4
"""Fewer rows than these tell nothing."""
SOURCE_NAMES = {"source", "src", "input", "document", "article", "text", "dialogue", "question"}
TARGET_NAMES = {"target", "tgt", "output", "summary", "highlights", "headline", "answer", "label"}


@probe(
    "source-without-target",
    group=GROUP,
    says="The source does not hold the target.",
    tasks=SEQ2SEQ,
    budget="fast",
)
def source_without_target(subject: Subject) -> Finding:
    """Look for the target's text in what the encoder receives, where the raw source does not hold it.

    Fault: The encoder is given the text that the decoder must produce. The model learns to copy, and has nothing to
    copy later.

    Causes: Prompt and answer are joined into one source, as for a causal model. Or the same column is tokenized as
    source and as target.

    Remedy: Make sources of the source column only, and labels of the target column.

    Warning: Sources hold their targets, but so do the raw data, or the raw data are not known. Extractive summaries
    look like this.
    """
    targets = targets_of(subject, subject.need("train"))
    held = seen = 0
    shown = ""
    bodies = [(body_of(subject, row.source), body_of(subject, row.labels)) for row in targets.rows]
    cut = _cut_sources(targets.rows)
    equal = 0
    raw_held = 0
    for index, (source, labels) in enumerate(bodies):
        if len(labels) < 3 or index in cut:
            continue
        seen += 1
        equal += source == labels
        inside = _plain(subject, labels) in _plain(subject, source)
        held += inside
        if inside and targets.texts:
            texts = sorted(targets.texts[index].values(), key=len)
            raw_held += any(_squeezed(a) in _squeezed(b) for at, a in enumerate(texts) for b in texts[at + 1 :])
        if inside and not shown:
            shown = " ".join(subject.token_texts(source))[:300]
    if seen < FEW:
        raise NotChecked("too few targets to look at")
    if held < 0.9 * seen:
        return passed(f"{held} of {seen} sources hold their target", measured=held)
    parts: dict[str, Any] = {"measured": held, "expected": 0}
    at = targets.at
    if not targets.texts:
        return warn(
            f"{held} of {seen} sources hold their whole target",
            cause="the model can copy the target; whether the data are so is not known: look at how sources are made"
            + at,
            **parts,
        )
    columns = list(targets.texts[0])
    if equal >= 0.9 * seen and len(columns) > 1:
        return fail(
            f"in {equal} of {seen} rows source and target are the same text",
            cause=f"both are made of one column, of {', '.join(columns)}: give text_target the other one{at}",
            **parts,
        )
    if raw_held >= 0.5 * held:
        return warn(
            f"{held} of {seen} sources hold their whole target, as the raw data do", cause="the model can copy", **parts
        )
    if len(columns) < 2:
        return warn(
            f"{held} of {seen} sources hold their whole target", cause="the model can copy the target" + at, **parts
        )
    return fail(
        f"{held} of {seen} sources hold their whole target, and the raw sources do not",
        cause=f"the target is joined to the source, so the model learns to copy it, and has nothing to copy later: "
        f"make sources of the source column only{at}",
        example=Example(("source",), [(shown,)], caption="what the encoder receives"),
        **parts,
    )


def _cut_sources(rows: Sequence[SourceAndLabels]) -> set[int]:
    """Return the rows whose source has the greatest length, so that it may be cut and have lost its target.

    They are looked at all the same if few others are left.
    """
    longest = max((len(row.source) for row in rows), default=0)
    cut = {index for index, row in enumerate(rows) if len(row.source) == longest}
    return cut if len(cut) > 1 and len(rows) - len(cut) >= FEW else set()


def _plain(subject: Subject, ids: Sequence[int]) -> str:
    return _squeezed(str(subject.need("tokenizer").decode(list(ids), skip_special_tokens=True)))


def _squeezed(text: str) -> str:
    return "".join(text.split())


@probe(
    "label-padding-ignored",
    group=GROUP,
    says="Padding of labels is -100, or the loss ignores it.",
    tasks=(*SEQ2SEQ, "causal-lm"),
)
def label_padding_ignored(subject: Subject) -> Finding:
    """Look for padding tokens at the end of labels, and see whether the loss depends on them.

    Fault: Padding tokens have a label and the loss counts them. Learning to predict padding takes the place of
    learning the text, and the loss looks better than it is.

    Causes: Targets are padded in map with padding='max_length', and the padding keeps its id as label.

    Remedy: Set them to -100: `[id if id != tokenizer.pad_token_id else -100 for id in ids]`, or do not pad in map and
    use `DataCollatorForSeq2Seq`.

    Warning: Padding has labels, and the loss cannot be computed to see whether it ignores them.
    """
    import torch

    tokenizer = subject.need("tokenizer")
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None:
        raise NotChecked("the tokenizer has no padding token")
    train = subject.need("train")
    batch = first_batch(train, 8)
    if "labels" not in batch:
        raise NotChecked("batches have no labels")
    labels = torch.as_tensor(batch["labels"]).clone()
    end = 1 if pad == getattr(tokenizer, "eos_token_id", None) else 0
    count = 0
    for row in range(len(labels)):
        values = ints(labels[row])
        last = len(values)
        while last > 0 and values[last - 1] == pad:
            last -= 1
        if last + end < len(values):
            count += len(values) - last - end
            labels[row, last + end :] = IGNORED
    supervised = int((labels != IGNORED).sum())
    if not count:
        return passed("no padding token has a label", measured=0)
    where = place_of(train.collate)
    text = f"{count} padding tokens have a label, beside {supervised} real ones"
    try:
        losses = loss_of(subject, batch), loss_of(subject, {**batch, "labels": labels})
    except NotChecked as reason:
        return warn(text, cause=f"whether the loss ignores them is not known ({reason})", measured=count, expected=0)
    if abs(losses[0] - losses[1]) <= 1e-5 * abs(losses[1]):
        return passed(f"{text}, and the loss ignores them", measured=0)
    return fail(
        f"{text}, and the loss counts them",
        cause=f"the loss of {len(labels)} rows is {losses[0]:.4f} with them and {losses[1]:.4f} without, and learning "
        "to predict padding takes its place: set labels to -100 at padding, as DataCollatorForSeq2Seq does"
        + (f" ({where})" if where else ""),
        measured=round(losses[0], 4),
        expected=round(losses[1], 4),
    )


@probe(
    "source-prefix-same",
    group=GROUP,
    says="Sources of training and evaluation begin with the same prefix.",
    tasks=SEQ2SEQ,
    budget="fast",
)
def source_prefix_same(subject: Subject) -> Finding:
    """Compare the tokens that all training sources begin with, with those of the evaluation.

    Fault: All training sources begin with a prefix, such as 'summarize: ', and no evaluation source does. The scores
    are those of a task that was not trained.

    Causes: Training and evaluation data are prepared by two functions, or the prefix is added in one call of map only.

    Remedy: Prepare both with the same function.

    Warning: Some sources lack the prefix that the others have.
    """
    train = [row.source for row in targets_of(subject, subject.need("train")).rows]
    if len(train) < 8:
        raise NotChecked("too few rows to tell a prefix")
    common = _common(train)
    if len(common) < 2:
        first = Counter(tuple(each[:3]) for each in train).most_common(1)[0]
        if 0.8 * len(train) <= first[1] < len(train):
            text = "".join(subject.token_texts(first[0]))
            return warn(
                f"{len(train) - first[1]} of {len(train)} sources do not begin with {text!r}, as the others do",
                cause="some sources have no prefix: add it to all of them",
                measured=first[1],
                expected=len(train),
            )
        return passed("sources have no common prefix")
    text = subject.need("tokenizer").decode(common)
    if subject.evaluation is None:
        return passed(f"all of {len(train)} sources begin with {text!r}")
    found = targets_of(subject, subject.evaluation)
    other = [row.source for row in found.rows]
    having = sum(each[: len(common)] == common for each in other)
    if having == len(other):
        return passed(f"sources of training and evaluation begin with {text!r}")
    parts: dict[str, Any] = {"measured": having, "expected": len(other)}
    cause = f"the model is evaluated on sources of another form than in training: prepare both alike ({found.where})"
    message = f"all training sources begin with {text!r}, and {having} of {len(other)} evaluation sources do"
    return fail(message, cause=cause, **parts) if having == 0 else warn(message, cause=cause, **parts)


def _common(rows: Sequence[list[int]]) -> list[int]:
    common: list[int] = []
    for values in zip(*rows, strict=False):
        if len(set(values)) > 1:
            break
        common.append(values[0])
    return common


@probe(
    "source-and-target-in-order",
    group=GROUP,
    says="Sources are made of the source column, and labels of the target column.",
    tasks=SEQ2SEQ,
    budget="fast",
)
def source_and_target_in_order(subject: Subject) -> Finding:
    """Compare the names of the columns that sources and labels are made of.

    Warning: Labels are made of a column whose name says that it is the source, such as 'document', and sources of one
    whose name says that it is the target, such as 'summary'.

    Remedy: Look at one row of the raw data and exchange the two columns if the names are right.
    """
    targets = targets_of(subject, subject.need("train"))
    column = target_column(subject, targets)
    others = [name for name in targets.texts[0] if name != column.name]
    said = column.name.rsplit(".", 1)[-1].lower()
    if said in SOURCE_NAMES and any(name.rsplit(".", 1)[-1].lower() in TARGET_NAMES for name in others):
        return warn(
            f"labels are made of the column {column.name!r}, and the source of {', '.join(map(repr, others))}",
            cause=f"the names say the opposite: look whether source and target are exchanged{targets.at}",
        )
    return passed(f"labels are made of the column {column.name!r}")
