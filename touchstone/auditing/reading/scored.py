"""Runs a user's evaluation with predictions whose score is known."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from touchstone.auditing.adapters.evaluated import EvaluationRecord, Prediction
from touchstone.auditing.finding import NotChecked
from touchstone.auditing.reading import gold, scores
from touchstone.auditing.subject import IGNORED, Subject

if TYPE_CHECKING:
    from torch import Tensor

SMALL = 4
"""Rows in a batch of the evaluations that probes run."""


def shifts(subject: Subject) -> bool:
    """Return whether position j of the logits predicts label j + 1."""
    return subject.task == "causal-lm" and not subject.aligned


def plain(subject: Subject) -> EvaluationRecord:
    """Return the evaluation of a few rows with a metric, as it is.

    Raises:
        NotChecked: there is no metric, the evaluation failed, or its predictions do not reach the metric.
    """
    evaluate = subject.need("evaluate")
    subject.need("compute_metrics")
    record: EvaluationRecord = evaluate(SMALL).need()
    if not record.predictions or record.predictions[0].outputs is None:
        raise NotChecked("the evaluation makes no predictions: the metric is not called")
    return record


def judged(record: EvaluationRecord) -> dict[str, float]:
    """Return the metrics whose best is 1 or 100.

    Raises:
        NotChecked: there are none.
    """
    found = {name: value for name, value in record.scores().items() if scores.is_score(name)}
    if not found:
        names = ", ".join(record.scores()) or "none"
        raise NotChecked(f"no metric is a score whose best is known: the evaluation reports {names}")
    return found


def known(record: EvaluationRecord, kind: str) -> dict[str, float]:
    """Return the metrics whose best is known: 1 or 100, or for a regression also errors, whose best is 0.

    Scores of parts, such as `PER_f1`, are among them; of these, a part that does not occur may score 0.

    Raises:
        NotChecked: there are none.
    """
    errors = {name: value for name, value in record.scores().items() if scores.is_error(name) and kind == "numbers"}
    parts = {name: value for name, value in record.scores().items() if scores.is_part(name)}
    return {**errors, **parts} or judged(record)


def padding_id(subject: Subject) -> int | None:
    """Return the tokenizer's padding id, or None."""
    value = getattr(subject.tokenizer, "pad_token_id", None)
    return None if value is None else int(value)


def with_gold(subject: Subject) -> EvaluationRecord:
    """Return the evaluation in which the labels are the predictions.

    Raises:
        NotChecked: the rows cannot show a perfect score, for instance because they hold no entity.
    """
    record = plain(subject)
    kind = gold.kind(record.predictions[0])
    if kind == "ids" and not getattr(getattr(subject.model, "config", None), "is_encoder_decoder", False):
        raise NotChecked("a decoder generates: where its output begins depends on the prompt")
    _need_variety(subject, record, kind)
    pad = padding_id(subject)
    evaluated: EvaluationRecord = subject.need("evaluate")(
        SMALL, change=lambda each, _: gold.replaced(each, gold.same, shift=shifts(subject), pad=pad)
    )
    return evaluated.need()


def _need_variety(subject: Subject, record: EvaluationRecord, kind: str) -> None:
    """Check that a perfect score is possible: more than one class, an entity, texts of four words."""
    kept = [row[row != IGNORED].tolist() for each in record.predictions for row in _rows(gold.first(each.labels))]
    if kind in ("logits", "classes", "numbers", "flags") and len({label for row in kept for label in row}) < 2:
        raise NotChecked("the first evaluation rows have labels of one class only")
    tagged = subject.task == "token-classification" and has_scheme(subject)
    if tagged and not any(subject.label_text(label).startswith("B-") for row in kept for label in row):
        raise NotChecked("the first evaluation rows have no entity")
    if kind == "ids":
        special = set(getattr(subject.tokenizer, "all_special_ids", ()))
        if any(len([each for each in row if each not in special]) < 6 for row in kept):
            raise NotChecked("some of the first evaluation rows are too short for a score of 4-grams")


def _rows(labels: Tensor) -> Iterator[Tensor]:
    yield from labels if labels.dim() == 2 else labels.unsqueeze(1)


def has_scheme(subject: Subject) -> bool:
    """Return whether the label names are B- and I- tags with an O."""
    names = list(subject.names or ())
    return "O" in names and any(name.startswith("B-") for name in names)


def ignored_counted(subject: Subject) -> tuple[dict[str, float], dict[str, float], int] | None:
    """Return scores before and after a change that touches only positions without a label, or None if all stay.

    The labels themselves are predicted as well: an untrained model may score 0 whatever is counted.
    """
    record = plain(subject)
    evaluate, shift = subject.need("evaluate"), shifts(subject)
    for right in (False, True):

        def base(each: Prediction, right: bool = right) -> Prediction:
            return replace(each, outputs=gold.replaced(each, gold.same, shift=shift)) if right else each

        before = record.scores()
        if right:
            before = evaluate(SMALL, change=lambda each, _: base(each).outputs).need().scores()
        for extra in (0, 7):
            after: EvaluationRecord = evaluate(
                SMALL,
                change=lambda each, index, extra=extra: gold.noise(base(each), shift=shift, extra=extra, seed=index),
            )
            changed = {
                name: value
                for name, value in after.need().scores().items()
                if name in before and abs(value - before[name]) > 1e-9 * max(1.0, abs(value))
            }
            if changed:
                return {name: before[name] for name in changed}, changed, extra
    return None


def ignored_spoil(subject: Subject) -> bool:
    """Return whether positions without a label change the metric, and the data has such positions."""
    found = ignored_counted(subject)
    return found is not None and not (found[2] and none_ignored(subject))


def labelled_positions(record: EvaluationRecord) -> int:
    """Return how many positions of an evaluation have a label."""
    return sum(int((gold.first(each.labels) != IGNORED).sum()) for each in record.predictions)


def none_ignored(subject: Subject) -> bool:
    """Tell whether all rows that are evaluated have one length and a label at every position, like packed blocks."""
    labels = [each.labels for each in plain(subject).predictions]
    if not labels or not all(hasattr(each, "shape") and len(each.shape) == 2 for each in labels):
        return False
    return len({each.shape[1] for each in labels}) == 1 and not any(bool((each == IGNORED).any()) for each in labels)


def where(subject: Subject, part: str) -> str:
    """Return the place of a part in the user's code, in brackets, or an empty string."""
    place = subject.where.get(part, "")
    return f" ({place})" if place else ""


def raised_at(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if "site-packages" not in each.filename and "/touchstone/" not in each.filename]
    at = (own or frames)[-1]
    return f"{at.filename}:{at.lineno} in {at.name}"


def first_rows(labels: Any) -> Any:
    head = gold.first(labels)
    if isinstance(labels, list) and labels and not isinstance(labels[0], (int, float)):
        return [row for part in labels for row in gold.first(part)]
    return head
