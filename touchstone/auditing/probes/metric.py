"""Probes of the metric: gold scores best, wrong predictions score less, padding does not count."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any

from touchstone.auditing.adapters import loop_order as observed
from touchstone.auditing.adapters.evaluated import Prediction
from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading import gold, scores
from touchstone.auditing.reading.scored import (
    SMALL,
    has_scheme,
    ignored_counted,
    judged,
    labelled_positions,
    none_ignored,
    padding_id,
    plain,
    shifts,
    where,
    with_gold,
)
from touchstone.auditing.subject import IGNORED, Subject

if TYPE_CHECKING:
    from torch import Tensor

GROUP = "evaluation"
TOGETHER = 64
"""A batch size that is larger than the number of rows that are evaluated."""


@probe(
    "ignored-positions-not-scored",
    group=GROUP,
    says="Predictions at positions without a label do not change the metric.",
)
def ignored_positions_not_scored(subject: Subject) -> Finding:
    """Change predictions where the label is -100, and add padding: no score may change.

    Fault: Predictions at padding and special tokens change the metric. The score depends on how much padding there is,
    and is mostly too low or too high.

    Causes: compute_metrics compares all positions of predictions and labels, or -100 is taken for a class.

    Remedy: Drop them first: `kept = labels != -100`, then score `predictions[kept]` and `labels[kept]`.

    Warning: A number that is no known score changes. Or every position has a label now, so that nothing is wrong until
    rows of different lengths come.
    """
    if subject.trace is not None:
        return observed.counted_padding(subject.trace)
    found = ignored_counted(subject)
    if found is None:
        return passed("noise where the label is -100, and 7 more padded columns, change no metric")
    before, after, extra = found
    if not any(scores.is_score(name) or scores.is_error(name) for name in after):
        return warn(
            f"predictions where no label is change {scores.shown(before)} to {scores.shown(after)}",
            cause="positions with the label -100 (special tokens, padding) are counted",
            measured=after,
            expected=before,
        )
    how = f"{extra} more padded columns" if extra else "other predictions where the label is -100"
    if extra and none_ignored(subject):
        return warn(
            f"{how} would change the metric: {scores.shown(before)} would become {scores.shown(after)}",
            cause="positions with the label -100 would be counted. Here every position has a label and all rows have "
            f"one length, so nothing is wrong now{where(subject, 'compute_metrics')}",
            measured=after,
            expected=before,
        )
    return fail(
        f"{how} change the metric: {scores.shown(before)} becomes {scores.shown(after)}",
        cause="positions with the label -100 (special tokens, padding) are counted: drop them from predictions and "
        f"labels before scoring, for instance by a mask `labels != -100`{where(subject, 'compute_metrics')}",
        measured=after,
        expected=before,
    )


@probe(
    "gold-scores-best",
    group=GROUP,
    says="The metric gives its best to predictions that equal the labels, and less to wrong ones.",
)
def gold_scores_best(subject: Subject) -> Finding:
    """Score the labels as predictions, then predictions that are wrong everywhere.

    Fault: The labels themselves, given as predictions, do not reach the best score. Or wrong predictions score as well
    as right ones. No model can then be judged by this metric.

    Causes: Predictions and labels are moved by one place, decoded in two ways, or passed through different clean-ups.
    If wrong ones score best, labels are compared with labels.

    Remedy: Call compute_metrics by hand with one-hot logits of the labels, and follow both through it. For a causal
    model, score `predictions[:, :-1]` against `labels[:, 1:]`.

    Warning: The score is a mean over classes, some of which do not occur in the first rows.
    """
    perfect = with_gold(subject)
    values = judged(perfect)
    low = {name: value for name, value in values.items() if not scores.best(value)}
    if low:
        return _below_best(subject, low)
    unmoved = _unmoved(subject, values)
    if unmoved:
        return fail(
            f"wrong predictions score as well as right ones: {scores.shown(unmoved)}",
            cause="the metric does not look at the predictions: labels may be compared with labels"
            f"{where(subject, 'compute_metrics')}",
            measured=unmoved,
            expected="less than the best",
        )
    return passed(f"labels as predictions score {scores.shown(values)}; wrong predictions score less")


def _below_best(subject: Subject, low: Mapping[str, float]) -> Finding:
    """Explain why the labels, as predictions, do not reach the best score."""
    message = f"the labels, given as predictions, score {scores.shown(low)}"
    kind = gold.kind(plain(subject).predictions[0])
    if kind == "logits":
        if ignored_counted(subject) is not None:
            raise NotChecked("positions without a label are counted: see ignored-positions-not-scored")
        other = subject.need("evaluate")(
            SMALL, change=lambda each, _: gold.replaced(each, gold.same, shift=not shifts(subject))
        ).need()
        reached = {name: value for name, value in other.scores().items() if name in low and scores.best(value)}
        if reached and shifts(subject):
            return fail(
                message,
                cause="the prediction at position j is compared with label j, but it belongs to label j + 1: score "
                "predictions[:, :-1] against labels[:, 1:]",
                measured=dict(low),
                expected="the best",
            )
        if reached:
            return fail(
                message,
                cause="the prediction at position j is compared with label j + 1: this model predicts label j at "
                "position j, so do not shift",
                measured=dict(low),
                expected="the best",
            )
    averaged = all(scores.part_of(name) in ("f1", "precision", "recall") for name in low)
    if averaged and kind in ("logits", "classes") and not _all_classes(subject):
        return warn(
            message,
            cause="it may be an average over classes of which some do not occur in the first evaluation rows",
            measured=dict(low),
            expected="the best",
        )
    causes = "predictions and labels go through different steps before they are compared"
    if kind == "ids":
        causes = (
            "predictions and references are decoded in different ways, such as -100 not replaced by the padding token, "
            "or special tokens kept in one of them (skip_special_tokens=True)"
        )
    return fail(
        message,
        cause=f"{causes}{where(subject, 'compute_metrics')}",
        measured=dict(low),
        expected="the best",
    )


def _all_classes(subject: Subject) -> bool:
    """Return whether every class occurs in the labels of the rows that are evaluated."""
    predictions = plain(subject).predictions
    found = {int(label) for each in predictions for label in gold.first(each.labels).flatten() if label != IGNORED}
    return len(found) == int(gold.first(predictions[0].outputs).shape[-1])


def _unmoved(subject: Subject, values: Mapping[str, float]) -> dict[str, float]:
    """Return the scores that are at their best although every prediction is wrong."""
    record = plain(subject)
    what = gold.kind(record.predictions[0])
    head = gold.first(record.predictions[0].outputs)
    special = sorted(getattr(subject.tokenizer, "all_special_ids", ()))
    choose = gold.cut(special) if what == "ids" else gold.wrong(head.shape[-1])
    worse = subject.need("evaluate")(
        SMALL,
        change=lambda each, _: gold.replaced(each, choose, shift=shifts(subject), pad=padding_id(subject)),
    ).need()
    found = {name: value for name, value in worse.scores().items() if name in values and scores.best(value)}
    if what == "ids":  # texts that are only cut keep their precision
        return {name: value for name, value in found.items() if "precision" not in scores.words(name)}
    return found


@probe(
    "metric-arguments-in-order",
    group=GROUP,
    says="The metric takes predictions for predictions and labels for labels, and reads both by the model's names.",
    tasks=("token-classification",),
    loops=False,
)
def metric_arguments_in_order(subject: Subject) -> Finding:
    """Leave out every second entity: precision stays 1, recall and F1 are those of the reference.

    Fault: Predictions and labels are exchanged in the call of the metric, so that precision and recall change places.
    Or the metric reads label ids by another list of names than the model.

    Causes: seqeval and scikit-learn take the true tags first. Or a function returns (labels, predictions) and is
    unpacked the other way round (course#641).

    Remedy: Pass by name: `metric.compute(predictions=..., references=...)`, `f1_score(y_true=..., y_pred=...)`, and
    make the list of names from `model.config.id2label`.

    Warning: The scores differ from those of whole entities. Usually the metric counts tokens, most of which are O.
    """
    import torch

    if not has_scheme(subject):
        raise NotChecked("the label names are no B- and I- tags with O")
    perfect = judged(with_gold(subject))
    if not all(scores.best(value) for value in perfect.values()):
        raise NotChecked("the labels themselves do not score best: see gold-scores-best")
    names = [str(name) for name in subject.need("names")]
    outside = names.index("O")
    state = {"count": 0}

    def leave_out(labels: Tensor) -> Tensor:
        made = labels.clone()
        for row in made:
            dropping = False
            for place, label in enumerate(row.tolist()):
                if label == IGNORED:
                    continue
                if names[label].startswith("B-"):
                    state["count"] += 1
                    dropping = state["count"] % 2 == 0
                elif label == outside:
                    dropping = False
                if dropping:
                    row[place] = outside
        return made

    record = subject.need("evaluate")(SMALL, change=lambda each, _: gold.replaced(each, leave_out)).need()
    measured = {name: value / scores.scale(perfect[name]) for name, value in judged(record).items() if name in perfect}
    if state["count"] < 2:
        raise NotChecked("the first evaluation rows have fewer than two entities")
    by_part: dict[str, float] = {}
    for name, value in measured.items():
        part = scores.part_of(name)
        if part:
            by_part.setdefault(part, value)
    precision, recall = by_part.get("precision"), by_part.get("recall")
    if precision is not None and recall is not None and scores.best(recall) and not scores.best(precision):
        return fail(
            f"of {state['count']} entities every second is left out: precision is {precision:.3f}, recall is 1",
            cause="predictions and references are exchanged in the call of the metric: the first argument of seqeval "
            "is y_true, and evaluate takes predictions= and references= (course#641)"
            f"{where(subject, 'compute_metrics')}",
            measured=by_part,
            expected={"precision": 1.0},
        )
    state["count"] = 0
    gold_rows, made_rows = [], []
    for each in record.predictions:
        guesses = gold.first(each.outputs).argmax(-1)
        for row, guess in zip(each.labels, guesses, strict=True):
            kept = row != IGNORED
            gold_rows.append(row[kept].tolist())
            made_rows.append(guess[kept].tolist())
    expected = _reference(made_rows, gold_rows, names)
    wrong = {part: value for part, value in by_part.items() if part in expected and abs(value - expected[part]) > 0.005}
    flat = torch.tensor(
        [left == right for a, b in zip(made_rows, gold_rows, strict=True) for left, right in zip(a, b, strict=True)]
    )
    if not wrong:
        return passed(f"with every second entity left out: {scores.shown(by_part)}, as the reference scorer")
    other = _other_names(subject, names)
    if other:
        return fail(
            f"with every second entity left out the metric is {scores.shown(by_part)}; by the model's names it is "
            f"{scores.shown({part: expected[part] for part in by_part if part in expected})}",
            cause=f"{other}: use one list for the data, the model and the metric{where(subject, 'compute_metrics')}",
            measured=by_part,
            expected=expected,
        )
    if by_part.get("f1") is not None and abs(by_part["f1"] - float(flat.float().mean())) < 1e-3:
        return warn(
            f"f1 is {by_part['f1']:.3f} by token; by entity it is {expected['f1']:.3f}",
            cause="the metric counts tokens, most of which are O: figures of named entities are usually by entity "
            "(seqeval)",
            measured=by_part,
            expected=expected,
        )
    return warn(
        f"with every second entity left out the metric is {scores.shown(by_part)}; by entity it is "
        f"{scores.shown({part: expected[part] for part in by_part if part in expected})}",
        cause="the metric may count tokens, or merge subwords, or use another list of label names than the model",
        measured=by_part,
        expected=expected,
    )


def _other_names(subject: Subject, names: Sequence[str]) -> str:
    """Return how a list of label names that the metric uses differs from the model's, or an empty string."""
    function = subject.extra.get("metric_function")
    if function is None:
        return ""
    owner: Any = function if inspect.isroutine(function) else type(function).__call__
    code = getattr(owner, "__code__", None)
    if code is None:
        return ""
    values = {name: owner.__globals__.get(name) for name in _names_in(code)}
    for name, cell in zip(code.co_freevars, owner.__closure__ or (), strict=False):
        values[name] = cell.cell_contents
    for name, value in values.items():
        table = value
        if isinstance(value, dict) and all(isinstance(key, int) for key in value):
            table = [value.get(index) for index in range(len(value))]
        if isinstance(table, (list, tuple)) and sorted(map(str, table)) == sorted(names) and list(table) != list(names):
            place = next(index for index, each in enumerate(table) if each != names[index])
            return f"{name} of the metric has {table[place]} for label {place}, the model's id2label {names[place]}"
    return ""


def _names_in(code: CodeType) -> set[str]:
    """Return the global names that a function uses, also in its comprehensions."""
    found = set(code.co_names)
    for each in code.co_consts:
        if isinstance(each, CodeType):
            found |= _names_in(each)
    return found


def _reference(predictions: list[list[int]], references: list[list[int]], names: list[str]) -> dict[str, float]:
    from touchstone.stages import score_entities

    try:
        found = score_entities(predictions, references=references, names=names, mode="lenient")
    except (ImportError, ValueError) as error:
        raise NotChecked(f"the reference scorer cannot score these labels: {error}") from error
    return {part: float(found[part]) for part in ("precision", "recall", "f1", "accuracy")}


@probe(
    "metric-independent-of-batches",
    group=GROUP,
    says="The metric does not depend on the batch size.",
)
def metric_independent_of_batches(subject: Subject) -> Finding:
    """Compare the metric of the same, partly wrong, predictions in batches of one row and of several.

    Fault: The same predictions score differently in other batches.

    Causes: The metric is computed for each batch and averaged, or only the last batch counts. F1, BLEU and perplexity
    are no means over batches.

    Remedy: Collect all predictions and labels, and score them once. With evaluate: `metric.add_batch(...)` in the
    loop, and `metric.compute()` after it.
    """
    first = plain(subject).predictions[0]
    kind = gold.kind(first)
    if kind == "ids" and not getattr(getattr(subject.model, "config", None), "is_encoder_decoder", False):
        raise NotChecked("a decoder generates: where its output begins depends on the prompt")
    special = sorted(getattr(subject.tokenizer, "all_special_ids", ())) if kind == "ids" else []
    choose = gold.partly(None if kind == "ids" else gold.first(first.outputs).shape[-1], special)
    change = partial(_replaced, choose=choose, shift=shifts(subject), pad=padding_id(subject))
    records = [subject.need("evaluate")(size, change=change).need() for size in (1, TOGETHER, TOGETHER)]
    if kind == "logits" and len({labelled_positions(record) for record in records}) > 1:
        raise NotChecked("labels are drawn anew in each evaluation, such as masks: batches of another size have others")
    one, many, again = (
        {name: value for name, value in record.scores().items() if scores.is_score(name) or scores.is_error(name)}
        for record in records
    )
    many = {name: value for name, value in many.items() if value == again.get(name)}  # no bootstrap, as of ROUGE
    if not set(one) & set(many):
        raise NotChecked("the evaluation reports no metric whose name is known and that is not random")
    moved = [name for name in one if name in many and abs(one[name] - many[name]) > 1e-5 * max(1, abs(many[name]))]
    if not moved:
        return passed(f"batches of one row and one batch of all give the same {', '.join(sorted(one))}")
    if kind == "logits" and ignored_counted(subject) is not None:
        raise NotChecked("positions without a label are counted: see ignored-positions-not-scored")
    alone, together = ({name: found[name] for name in moved} for found in (one, many))
    return fail(
        f"{scores.shown(alone)} in batches of one row, {scores.shown(together)} in one batch",
        cause="the same predictions score differently in other batches: the metric is averaged over batches, or "
        f"only the last batch counts; collect all predictions, and score them once{where(subject, 'compute_metrics')}",
        measured=alone,
        expected=together,
    )


def _replaced(prediction: Prediction, _: int, *, choose: Callable[[Tensor], Tensor], shift: bool, pad: Any) -> Any:
    return gold.replaced(prediction, choose, shift=shift, pad=pad)
