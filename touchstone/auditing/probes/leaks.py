"""Probes of leaks between training and evaluation data, and of the metric that picks the best checkpoint."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading import gold, scores
from touchstone.auditing.reading.scored import SMALL, padding_id, plain, shifts
from touchstone.auditing.subject import Row, Split, Subject, ints

GROUP = "evaluation"
EVALUATED = 2000
TRAINED = 50_000
SECONDS = 4.0
"""Rows are compared for this long at most."""
CHUNK = 500
SHARE = 0.01
"""A larger share of evaluation rows that are also training rows is a fault, unless training rows repeat as much."""
MANY = 3
"""Fewer rows than these can be a coincidence."""
SHOWN = 3


@probe(
    "no-training-example-in-evaluation",
    group=GROUP,
    says="No evaluation example is also a training example.",
    budget="fast",
)
def no_training_example_in_evaluation(subject: Subject) -> Finding:
    """Compare the ids of evaluation and training rows, special tokens left out.

    Fault: More than 1% of the evaluation rows are training rows too, and the training rows do not repeat each other
    that much. The score is too good.

    Causes: One split is passed for both, or rows are repeated, augmented or cut into windows before the split.

    Remedy: Split first: `raw.train_test_split(seed=42)`, then tokenize and augment. Remove duplicates of the
    evaluation rows from the training rows.

    Warning: A few rows are in both, no more than repeat within the training data. Short texts recur.
    """
    train, evaluation = subject.need("train"), subject.need("evaluation")
    if train.dataset is evaluation.dataset:
        return fail(
            "the evaluation data is the training data, the same object",
            cause="train_dataset and eval_dataset are one data set: pass the validation split as eval_dataset",
        )
    special = frozenset(getattr(subject.tokenizer, "all_special_ids", ()))
    until = time.monotonic() + SECONDS
    held = [key for key in _keys(evaluation, EVALUATED, special, until - SECONDS / 2) if key]
    wanted = set(held)
    counts: Counter[tuple[int, ...]] = Counter()
    trained = 0
    repeated: Counter[tuple[int, ...]] = Counter()
    for key in _keys(train, TRAINED, special, until):
        trained += 1
        repeated[key] += 1
        if key in wanted:
            counts[key] += 1
    if not held or not trained:
        raise NotChecked("rows have no input_ids to compare")
    found = [key for key in held if key in counts]
    share = len(found) / len(held)
    natural = sum(count for count in repeated.values() if count > 1) / trained
    looked = f"{len(held)} evaluation rows and {trained} training rows"
    if not found:
        return passed(f"no row is in both, of {looked}")
    cells = [(subject.tokenizer.decode(list(key))[:200] if subject.tokenizer else str(key[:50]),) for key in found]
    example = Example(("text",), cells[:SHOWN], caption="evaluation rows that are training rows too")
    message = f"{len(found)} of {len(held)} evaluation rows ({share:.1%}) are training rows too"
    figures: dict[str, Any] = {"measured": share, "expected": 0, "example": example}
    if share > max(SHARE, 2 * natural) and len(found) >= MANY:
        return fail(
            message,
            cause=f"the splits overlap; within the training rows only {natural:.1%} repeat. Split before rows are "
            "repeated or shuffled, and remove training rows that are in the evaluation data",
            **figures,
        )
    return warn(message, cause=f"{natural:.1%} of the training rows repeat as well: short texts recur", **figures)


def _keys(split: Split, limit: int, special: frozenset[int], until: float) -> Iterator[tuple[int, ...]]:
    """Yield the ids of up to `limit` rows without special tokens, until a time."""
    dataset = split.dataset
    if not hasattr(dataset, "__len__"):
        for row in islice(split.stream(), limit):
            if time.monotonic() > until:
                return
            yield _key(split, row, special)
        return
    total = min(len(split), limit)
    columns = getattr(dataset, "column_names", None)
    quick = columns is not None and "input_ids" in columns and hasattr(dataset, "with_format")
    quick = quick and getattr(dataset, "format", {}).get("type") != "custom"  # with_transform makes columns anew
    plain_rows = dataset.with_format(None) if quick else dataset
    for start in range(0, total, CHUNK):
        if time.monotonic() > until:
            return
        stop = min(start + CHUNK, total)
        if quick:
            many: Sequence[Any] = plain_rows[start:stop]["input_ids"]
        else:
            yield from (_key(split, row, special) for row in split.rows(stop - start, start=start))
            continue
        for ids in many:
            yield tuple(each for each in ints(ids) if each not in special)


def _key(split: Split, row: Row, special: frozenset[int]) -> tuple[int, ...]:
    if "input_ids" not in row:
        raise NotChecked(f"rows of the {split.name} data have no input_ids: they are made by the collator")
    return tuple(each for each in ints(row["input_ids"]) if each not in special)


@probe(
    "best-metric-picks-the-best",
    group=GROUP,
    says="The metric that picks the best checkpoint is reported, and the right direction counts as better.",
)
def best_metric_picks_the_best(subject: Subject) -> Finding:
    """Look for the metric among those that are reported, and compare its direction with gold and wrong predictions.

    Fault: The worst checkpoint would be kept as the best, or training stops with a KeyError at the first evaluation.

    Causes: metric_for_best_model is an error such as 'wer' and greater_is_better is not set: the Trainer then takes
    greater as better unless the name ends with 'loss'. Or the name is not one that compute_metrics returns.

    Remedy: Set `greater_is_better=False` for errors, and use a key of the dict that compute_metrics returns.

    Warning: A few rows do not give the metric; all rows may.
    """
    name = subject.settings.metric_for_best
    if name is None:
        raise NotChecked("no metric picks a best checkpoint (metric_for_best_model is not set)")
    greater = subject.settings.greater_is_better
    record = subject.need("evaluate")(SMALL).need()
    key = name if name.startswith("eval_") else f"eval_{name}"
    if key not in record.metrics:
        names = ", ".join(sorted(each for each in record.metrics if "per_second" not in each))
        if not scores.is_score(name) and not scores.is_error(name):
            return warn(
                f"metric_for_best_model is {name!r}, which the evaluation of a few rows does not report",
                cause=f"reported are {names}; if {name} does not depend on the rows, training stops with a KeyError",
            )
        return fail(
            f"metric_for_best_model is {name!r}, which the evaluation does not report",
            cause=f"training stops with a KeyError at the first evaluation; reported are {names}",
            measured=sorted(record.metrics),
            expected=key,
        )
    if greater is None:
        raise NotChecked("whether a greater metric is better is not known")
    better = _better(subject, key)
    if better is None:
        raise NotChecked(f"whether a greater {name} is better is not known")
    if better == greater:
        return passed(f"{name} picks the best checkpoint, and {'greater' if greater else 'smaller'} is better")
    return fail(
        f"greater_is_better is {greater}, but a {'greater' if better else 'smaller'} {name} is better",
        cause=f"the worst checkpoint would be kept as the best (Trainer takes greater as better unless the name ends "
        f"with 'loss'): set greater_is_better={better}",
        measured=greater,
        expected=better,
    )


def _better(subject: Subject, key: str) -> bool | None:
    """Return whether a greater value is better, by the metric's name or else by gold and wrong predictions."""
    if scores.is_score(key):
        return True
    if scores.is_error(key):
        return False
    record = plain(subject)
    width = gold.first(record.predictions[0].outputs).shape[-1]
    if gold.kind(record.predictions[0]) == "ids":
        return None
    values = []
    for choose in (gold.same, gold.wrong(width)):
        changed = subject.need("evaluate")(
            SMALL,
            change=lambda each, _, choose=choose: gold.replaced(
                each, choose, shift=shifts(subject), pad=padding_id(subject)
            ),
        )
        values.append(changed.need().metrics.get(key))
    if not all(isinstance(value, (int, float)) for value in values) or values[0] == values[1]:
        return None
    return bool(values[0] > values[1])
