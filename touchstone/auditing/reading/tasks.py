"""Tell summarization from translation, which have the same head, by what the data look like."""

from __future__ import annotations

from typing import Any

from touchstone.auditing.subject import IGNORED, Subject, ints

ROWS = 32
SHORT = 0.5
"""Targets shorter than this share of their sources are summaries: a translation is about as long as its source."""
SUMMARIES = {"summary", "summaries", "highlights", "headline", "abstract", "title"}


def named_task(subject: Subject) -> str:
    """Return the task of a subject: `summarization` instead of `translation` where the data say so.

    Only stored rows and observed batches are read, so that no code of the user runs.
    """
    if subject.task != "translation":
        return subject.task
    calls = (*subject.maps, *subject.streamed)
    columns = {str(name).lower() for call in calls for name in getattr(call.source, "column_names", None) or ()}
    if columns & SUMMARIES:
        return "summarization"
    pairs = _pairs(subject)
    source, target = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    if pairs and target < SHORT * source:
        return "summarization"
    if pairs and subject.tokenizer is not None:
        texts = [str(subject.tokenizer.decode(source[:8])).strip().lower() for source, _ in pairs]
        if all(text.startswith("summarize") for text in texts):
            return "summarization"
    return subject.task


def _pairs(subject: Subject) -> list[tuple[list[int], list[int]]]:
    """Return the ids of some sources and targets, without padding."""
    train = subject.train
    if train is None:
        return []
    rows: list[dict[str, Any]] = [
        {key: value[place] for key, value in batch.items() if getattr(value, "ndim", 0) == 2}
        for batch in train.observed[:4]
        if getattr(batch.get("input_ids"), "ndim", 0) == 2
        for place in range(len(batch["input_ids"]))
    ]
    dataset = train.dataset
    if not rows and {"input_ids", "labels"} <= set(getattr(dataset, "column_names", None) or ()):
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "with_format"):
            return []
        plain = dataset.with_format(None)
        rows = [plain[index] for index in range(min(ROWS, len(dataset)))]
    unseen = {IGNORED, getattr(subject.tokenizer, "pad_token_id", None)}
    try:
        sides = [(ints(row["input_ids"]), ints(row["labels"])) for row in rows[:ROWS]]
    except (KeyError, TypeError, ValueError):
        return []
    return [([each for each in a if each not in unseen], [each for each in b if each not in unseen]) for a, b in sides]
