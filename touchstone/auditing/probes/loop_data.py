"""Probe of training loops: what the metric is given as predictions, and what as references."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed
from touchstone.auditing.observing.trace import MetricCall
from touchstone.auditing.probe import in_loops
from touchstone.auditing.probes.loop import short, trace_of
from touchstone.auditing.probes.metric import metric_arguments_in_order
from touchstone.auditing.subject import IGNORED, TASKS, UNKNOWN, Subject, ints

FOUND = 0.9
"""Share of the metric's predictions that are gold labels if the two arguments are exchanged."""


@in_loops(metric_arguments_in_order, tasks=(*TASKS, UNKNOWN))
def metric_arguments(subject: Subject) -> Finding:
    """Look for the labels of the data in the metric's predictions."""
    trace = trace_of(subject)
    calls = [call for call in trace.metrics if call.predictions is not None and call.references is not None]
    if not calls:
        raise NotChecked("no call of a known metric was seen (evaluate, seqeval, sacrebleu, scikit-learn)")
    gold = _gold(subject)
    if not gold:
        raise NotChecked("the labels of the evaluation data are not known")
    for call in calls:
        predictions, references = (_sequences(each) for each in (call.predictions, call.references))
        if not predictions or not references:
            continue
        wrong, right = (_share(each, gold) for each in (predictions, references))
        if wrong >= FOUND and right < FOUND and wrong - right > 0.2:
            return fail(
                f"predictions and references are exchanged in the call of {call.name}",
                cause=f"{100 * wrong:.0f}% of its predictions are labels of the data, and "
                f"{100 * right:.0f}% of its references, so precision and recall change places: exchange the two at "
                f"{short(call.where)} or where they are unpacked (course#641)",
                measured=wrong,
                expected=0.0,
                example=_exchanged(call, predictions, references),
            )
    return passed(f"references are labels of the evaluation data in {len(calls)} calls of a metric")


def _exchanged(call: MetricCall, predictions: list[Any], references: list[Any]) -> Example:
    rows = [(_cut(one), _cut(other)) for one, other in zip(predictions, references, strict=False) if one != other][:3]
    return Example(("given as predictions", "given as references"), rows, caption=f"{call.name} at {short(call.where)}")


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else " ".join(map(str, value))
    return text if len(text) <= 120 else f"{text[:117]}..."


def _share(values: list[Any], gold: set[Any]) -> float:
    distinct = {value for value in values if len(value) > 1}
    return sum(value in gold for value in distinct) / len(distinct) if distinct else 0.0


def _sequences(values: Any) -> list[Any]:
    """Return a metric's argument as texts, or as tuples of labels; references may be in lists of one."""
    try:
        items = list(values)
    except TypeError:
        return []
    if len(items) == 1 and isinstance(items[0], (list, tuple)) and any(" " in str(each) for each in items[0]):
        items = list(items[0])  # sacrebleu takes lists of references
    found: list[Any] = []
    for item in items:
        if isinstance(item, str):
            found.append(item.strip())
        elif isinstance(item, (list, tuple)) and len(item) == 1 and isinstance(item[0], str) and " " in item[0]:
            found.append(item[0].strip())
        elif isinstance(item, (list, tuple)) or hasattr(item, "tolist"):
            row = item.tolist() if hasattr(item, "tolist") else item
            if not isinstance(row, (list, tuple)):
                return []
            found.append(tuple(each for each in row if each != IGNORED))
    return found


def _gold(subject: Subject) -> set[Any]:
    """Return the label sequences of the evaluation data: as ids, as names, and as decoded texts."""
    found: set[Any] = set()
    for labels in _label_rows(subject):
        kept = tuple(label for label in labels if label != IGNORED)
        if subject.task == "token-classification":
            found |= {kept, tuple(subject.label_text(label) for label in kept)}
        elif subject.tokenizer is not None and subject.task in ("translation", "summarization"):
            found.add(subject.tokenizer.decode(list(kept), skip_special_tokens=True).strip())
    return found


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
