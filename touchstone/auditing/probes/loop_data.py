"""Probe of training loops: which texts the metric is given as predictions, and which as references."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.loop import GROUP, short, trace_of
from touchstone.auditing.subject import IGNORED, SEQ2SEQ, Subject, ints
from touchstone.auditing.trace import MetricCall

FOUND = 0.9
"""Share of the metric's predictions that are gold labels if the two arguments are exchanged."""


@probe(
    "loop-metric-texts",
    group=GROUP,
    says="The metric of a loop is given the decoded labels as references, and not as predictions.",
    tasks=SEQ2SEQ,
    loops=True,
)
def metric_texts(subject: Subject) -> Finding:
    """Look for the labels of the data in the metric's predictions."""
    trace = trace_of(subject)
    calls = [call for call in trace.metrics if call.predictions is not None and call.references is not None]
    if not calls:
        raise NotChecked("no call of a known metric was seen (evaluate, sacrebleu)")
    gold = _gold(subject)
    if not gold:
        raise NotChecked("the labels of the evaluation data are not known")
    for call in calls:
        predictions, references = (_texts(each) for each in (call.predictions, call.references))
        if not predictions or not references:
            continue
        wrong, right = (_share(each, gold) for each in (predictions, references))
        if wrong >= FOUND and right < FOUND and wrong - right > 0.2:
            return fail(
                f"predictions and references are exchanged in the call of {call.name}",
                cause=f"{100 * wrong:.0f}% of its predictions are labels of the evaluation data, "
                f"but only {100 * right:.0f}% of its references: exchange the two at {short(call.where)}, or where "
                "they are unpacked",
                measured=wrong,
                expected=0.0,
                example=_exchanged(call, predictions, references),
            )
    return passed(f"references are labels of the evaluation data in {len(calls)} calls of a metric")


def _exchanged(call: MetricCall, predictions: list[str], references: list[str]) -> Example:
    rows = [(_cut(one), _cut(other)) for one, other in zip(predictions, references, strict=False) if one != other][:3]
    return Example(("given as predictions", "given as references"), rows, caption=f"{call.name} at {short(call.where)}")


def _cut(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."


def _share(values: list[str], gold: set[str]) -> float:
    distinct = {value for value in values if len(value) > 1}
    return sum(value in gold for value in distinct) / len(distinct) if distinct else 0.0


def _texts(values: Any) -> list[str]:
    """Return a metric's argument as texts. References may be lists of one text, or one list of all texts."""
    items = list(values) if isinstance(values, (list, tuple)) else []
    if len(items) == 1 and isinstance(items[0], (list, tuple)):
        items = list(items[0])
    firsts = [item[0] if isinstance(item, (list, tuple)) and item else item for item in items]
    return [item.strip() for item in firsts if isinstance(item, str)]


def _gold(subject: Subject) -> set[str]:
    """Return the decoded labels of the evaluation data."""
    tokenizer = subject.need("tokenizer")
    return {
        tokenizer.decode([label for label in labels if label != IGNORED], skip_special_tokens=True).strip()
        for labels in _label_rows(subject)
    }


def _label_rows(subject: Subject) -> Iterator[list[int]]:
    evaluation = subject.need("evaluation")
    for batch in evaluation.observed:
        if "labels" in batch and getattr(batch["labels"], "ndim", 0) == 2:
            yield from (ints(row) for row in batch["labels"])
    try:
        rows = evaluation.rows(400)
    except NotChecked:
        return
    for row in rows:
        if "labels" in row:
            yield ints(row["labels"])
