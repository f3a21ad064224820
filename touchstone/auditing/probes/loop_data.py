"""Probes of training loops: the metric's arguments, and the rows that are evaluated and trained on."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.loop import GROUP, short, trace_of
from touchstone.auditing.subject import IGNORED, Subject, ints
from touchstone.auditing.trace import MetricCall

FOUND = 0.9
"""Share of the metric's predictions that are gold labels if the two arguments are exchanged."""
COMPARED = 12
"""Rows of two epochs that are compared at least. Two random orders of 12 rows are equal once in 5e8."""


@probe(
    "loop-metric-arguments",
    group=GROUP,
    says="The metric is given predictions as predictions and labels as references.",
    loops=True,
)
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
                f"{100 * right:.0f}% of its references, so that precision and recall change places: exchange the two at "
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


# Rows


@probe(
    "loop-evaluation-rows",
    group=GROUP,
    says="An evaluation sees every row of its data once.",
    loops=True,
)
def evaluation_rows(subject: Subject) -> Finding:
    """Look for rows that a whole pass over the evaluation data leaves out or repeats."""
    trace = trace_of(subject)
    called = {each.passing for each in trace.forwards if not each.grad}
    whole = [
        each
        for index, each in enumerate(trace.passes)
        if index in called and not each.training and each.ended and each.indices
    ]
    if not whole:
        raise NotChecked("no whole pass over evaluation data was seen: --budget deep lets longer ones end")
    this = whole[0]
    loader = trace.loaders[this.loader]
    seen = Counter(row for batch in this.indices for row in batch)
    rows = len(loader.dataset)
    missing = rows - len(seen)
    if not missing and max(seen.values()) == 1:
        return passed(f"an evaluation saw each of {rows} rows once")
    dropped = bool(getattr(loader.batch_sampler, "drop_last", False))
    if missing and dropped and missing < (loader.batch_size or loader.batch_sampler.batch_size):
        return fail(
            f"the evaluation leaves out {missing} of {rows} rows",
            cause="its DataLoader has drop_last=True, so the last, incomplete batch is not evaluated: set "
            "drop_last=False for the evaluation",
            measured=len(seen),
            expected=rows,
        )
    again = sum(times > 1 for times in seen.values())
    return warn(
        f"an evaluation saw {len(seen)} of {rows} rows, {again} of them more than once",
        cause="its sampler chooses rows: scores are those of a sample",
        measured=len(seen),
        expected=rows,
    )


@probe(
    "loop-epochs-differ",
    group=GROUP,
    says="Training rows come in another order in each epoch.",
    loops=True,
)
def epochs_differ(subject: Subject) -> Finding:
    """Compare the order of the rows in the first two epochs."""
    trace = trace_of(subject)
    passes = [each for each in trace.training_passes() if each.indices]
    pairs = [(one, other) for one, other in itertools.pairwise(passes) if one.loader == other.loader]
    if not pairs:
        raise NotChecked("no second epoch over a DataLoader with indices was seen")
    one, other = (list(itertools.chain.from_iterable(each.indices[: each.batches])) for each in pairs[0])
    count = min(len(one), len(other))
    if count < COMPARED:
        raise NotChecked(f"only {count} rows of the second epoch were seen")
    if one[:count] != other[:count]:
        return passed(f"the first {count} rows of two epochs differ in their order")
    if one[:count] == list(range(count)):
        return warn(
            "training rows are not shuffled: they come in the order of the data in every epoch",
            cause="set shuffle=True in the training DataLoader, unless the order is meant",
            measured=count,
            expected=0,
        )
    return fail(
        f"every epoch has the same shuffled order: its first {count} rows are equal",
        cause="the random generator of the order is seeded anew in each epoch: seed once, before the loop",
        measured=count,
        expected=0,
    )
