"""Sources and targets of encoder-decoders, and the column that targets were made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.reading.pairs import rows_of_split, sourced_rows, text_columns
from touchstone.auditing.reading.streams import is_stream
from touchstone.auditing.subject import IGNORED, Batch, Split, Subject, ints

ROWS = 48


@dataclass(frozen=True)
class SourceAndLabels:
    """One row after the collator: its source and its labels, both without padding."""

    source: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Targets:
    """Rows of a split: what the collator makes of them, and the columns that they come from.

    Args:
        rows: the collated rows.
        texts: the text columns that each row comes from; empty where they are not known.
        where: `file:line` of the call of map that tokenized them.
    """

    rows: list[SourceAndLabels]
    texts: list[dict[str, str]]
    where: str = ""

    @property
    def at(self) -> str:
        """The line of the user's code that made the labels, for a message."""
        return f" ({self.where})" if self.where else ""


def targets_of(subject: Subject, split: Split) -> Targets:
    """Return some rows of a split with their sources, labels and texts."""
    return subject.once(f"targets of {split.name}", lambda: _targets(subject, split))


def _targets(subject: Subject, split: Split) -> Targets:
    found = None
    try:
        found = sourced_rows(subject, split, ROWS) if is_stream(split.dataset) or len(split) else None
    except NotChecked:
        if not is_stream(split.dataset):
            raise
    try:
        rows = rows_of_split(split, ROWS) if found is None else found[0]
        size = max(1, min(split.batch_size, 16))
        batches = [split.batch(rows[start : start + size]) for start in range(0, len(rows), size)]
        known = bool(batches) and "labels" in batches[0]
    except NotChecked:
        known = False
        if not split.observed:
            raise
    made = [each for batch in (batches if known else split.observed) for each in _sources_and_labels(batch)]
    if not known or found is None or len(made) != len(found[1]):
        return Targets(made, [])
    sources, where = found[1], found[2]
    columns = text_columns(sources)
    return Targets(made, [{column: source[column] for column in columns} for source in sources], where)


def _sources_and_labels(batch: Batch) -> list[SourceAndLabels]:
    if "labels" not in batch or "input_ids" not in batch:
        raise NotChecked("batches have no input_ids or no labels")
    masks = batch.get("attention_mask")
    made = []
    for index in range(len(batch["input_ids"])):
        ids = ints(batch["input_ids"][index])
        mask = ints(masks[index]) if masks is not None else [1] * len(ids)
        labels = [each for each in ints(batch["labels"][index]) if each != IGNORED]
        made.append(SourceAndLabels([each for each, kept in zip(ids, mask, strict=True) if kept], labels))
    return made


def first_batch(split: Split, count: int) -> Batch:
    """Return a batch of a few rows, or the first rows of an observed one."""
    if split.observed and "labels" in split.observed[0]:
        return {key: value[:count] for key, value in split.observed[0].items() if hasattr(value, "shape")}
    return split.batch(rows_of_split(split, count))


@dataclass(frozen=True)
class TargetColumn:
    """The column that labels were made of, and how labels differ from its tokens.

    Args:
        name: the column.
        full: the ids of the whole texts, as the tokenizer makes them of a target.
        plain: the ids of the whole texts, as the tokenizer makes them of a source.
    """

    name: str
    full: list[list[int]]
    plain: list[list[int]]


def target_column(subject: Subject, targets: Targets) -> TargetColumn:
    """Find the column that labels were made of.

    Raises:
        NotChecked: no observed column gives the labels.
    """
    if not targets.texts or not targets.texts[0]:
        raise NotChecked(
            "the texts that labels were made of are not known: no call of Dataset.map that keeps rows was seen"
        )
    tokenizer = subject.need("tokenizer")
    best: tuple[float, TargetColumn | None] = (0.0, None)
    for name in targets.texts[0]:
        texts = [each[name] for each in targets.texts]
        plain = [ints(each) for each in tokenizer(texts)["input_ids"]]
        try:
            full = [ints(each) for each in tokenizer(text_target=texts)["input_ids"]]
        except (TypeError, ValueError):
            full = plain
        column = TargetColumn(name, full, plain)
        score = max(
            sum(likeness(row.labels, each) for row, each in zip(targets.rows, ids, strict=True)) / len(targets.rows)
            for ids in (full, plain)
        )
        if score > best[0]:
            best = score, column
    if best[1] is None or best[0] < 0.7:
        raise NotChecked("no column of the data gives the labels when it is tokenized")
    return best[1]


def likeness(labels: Sequence[int], ids: Sequence[int]) -> float:
    """Return the share of labels that stand in the ids in the same order, from either end or moved by a few places."""
    if not labels:
        return 0.0
    # Beginning anywhere in the first places, so that a lost first token does not hide the column.
    return max(
        sum(a == b for a, b in zip(labels, ids[start:], strict=False)) / len(labels)
        for start in range(min(4, len(ids)) or 1)
    )


def body_of(subject: Subject, ids: Sequence[int]) -> list[int]:
    """Return ids without the special tokens at both ends."""
    special = subject.special_ids
    start, end = 0, len(ids)
    while start < end and ids[start] in special:
        start += 1
    while end > start and ids[end - 1] in special:
        end -= 1
    return list(ids[start:end])


def end_ids(subject: Subject) -> set[int]:
    found: set[int] = set()
    for part in (
        subject.tokenizer,
        getattr(subject.model, "config", None),
        getattr(subject.model, "generation_config", None),
    ):
        value = getattr(part, "eos_token_id", None)
        found |= {int(each) for each in (value if isinstance(value, (list, tuple)) else [value]) if each is not None}
    return found
