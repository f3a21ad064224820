"""Probes of evaluation: it runs, each example once, the loss, the perplexity."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from touchstone.auditing.adapters.evaluated import EvaluationRecord
from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading import gold, scores
from touchstone.auditing.reading.scored import SMALL, first_rows, raised_at, shifts
from touchstone.auditing.subject import IGNORED, Subject

if TYPE_CHECKING:
    pass

GROUP = "evaluation"
CLOSE = 1e-4
"""Losses in float32 that agree relatively within this are equal: sums in another order differ by about 1e-6."""


@probe(
    "evaluation-runs",
    group=GROUP,
    says="The evaluation runs on a few rows.",
)
def evaluation_runs(subject: Subject) -> Finding:
    """Run the user's evaluation once, so that an error does not wait for the end of the first epoch.

    Warning: The evaluation raises an error on a few rows. In training it would do so after the first epoch. An
    evaluation that needs all rows, such as a metric over classes that do not occur in a few, is no fault.

    Remedy: Read the line that the finding names, and run the evaluation on a few rows before you train:
    `trainer.evaluate()`.
    """
    record = subject.need("evaluate")(SMALL)
    if record.error is None:
        return passed(f"the evaluation ran and reported {', '.join(sorted(record.metrics)) or 'nothing'}")
    return warn(
        f"the evaluation of {len(record.predictions)} batches raised {type(record.error).__name__}: {record.error}",
        cause=f"raised at {raised_at(record.error)}; if it needs all rows, this is no fault",
    )


@probe(
    "every-example-evaluated-once",
    group=GROUP,
    says="Every evaluation row is evaluated once.",
    budget="fast",
)
def every_example_evaluated_once(subject: Subject) -> Finding:
    """Draw the indices of one evaluation, and count what reaches the metric.

    Fault: Rows are lost before the metric sees them, or some are counted twice. The score is that of another data set.

    Causes: `dataloader_drop_last=True` is set for training and holds for the evaluation too, or its loader has
    drop_last=True. Or a sampler draws with replacement, or an overridden evaluation loop drops the last batch.

    Remedy: Use drop_last=False and a sequential sampler for the evaluation. In a Trainer, override get_eval_dataloader
    if training needs drop_last.

    Warning: The evaluation sees a part of the rows or some twice, in no pattern that proves a mistake.
    """
    subject.need("evaluation")
    read = subject.extra.get("evaluation_order")
    if read is None:
        raise NotChecked("the order of the evaluation rows cannot be read")
    drawn, total = read()
    counts = Counter(drawn)
    missing = total - len(counts)
    twice = sum(count > 1 for count in counts.values())
    if missing or twice:
        size = subject.need("evaluation").batch_size
        text = f"{missing} of {total} evaluation rows are never evaluated"
        if twice:
            text = f"{twice} of {total} evaluation rows are evaluated more than once, {missing} never"
        dropped = missing == total % size and not twice and 0 < missing < size
        figures = {"measured": len(counts), "expected": total}
        if dropped:
            remedy = (
                "make the loader of the evaluation with drop_last=False"
                if subject.trace is not None
                else "dataloader_drop_last also holds for evaluation; set it to False, or override get_eval_dataloader"
            )
            cause = f"the last, incomplete batch of {missing} rows (batch size {size}) is dropped: {remedy}"
            return fail(text, cause=cause, **figures)
        if missing and twice:
            cause = "the sampler of the evaluation draws some rows again instead of others: use a sequential sampler"
            return fail(text, cause=cause, **figures)
        cause = "the sampler of the evaluation gives a part of the rows, or some twice: draw each once"
        return warn(text, cause=cause, **figures)
    lost = _lost_on_the_way(subject)
    if lost:
        return lost
    return passed(f"each of {total} evaluation rows is evaluated once")


def _lost_on_the_way(subject: Subject) -> Finding | None:
    """Compare the rows that the metric received with those the model received."""
    if subject.evaluate is None or subject.compute_metrics is None:
        return None
    record = subject.evaluate(SMALL)
    seen = sum(len(first_rows(each.labels)) for each in record.predictions if each.labels is not None)
    got = sum(len(first_rows(labels)) for _, labels in record.calls if labels is not None)
    if record.error is not None or not record.calls or not seen or got == seen:
        return None
    return fail(
        f"the metric receives {got} of {seen} rows",
        cause="rows are lost between the model and the metric: look at the overridden evaluation_loop or evaluate",
        measured=got,
        expected=seen,
    )


@probe(
    "evaluation-loss-by-token",
    group=GROUP,
    says="The evaluation loss is the mean over labelled tokens, whatever the batch size.",
    loops=False,
)
def evaluation_loss_by_token(subject: Subject) -> Finding:
    """Compare the reported loss at two batch sizes with the mean over all labelled tokens.

    Fault: The evaluation averages sums over tokens, so that the loss grows with the batch size. Or a loop reports the
    loss of its last batch, a sum that is not divided, or one that is divided by another number than it has parts.

    Causes: A loss of your own uses reduction='sum' and is not divided in the evaluation, where num_items_in_batch is
    None. In a loop, means of batches are added up and divided by the number of rows, or multiplied by the batch size
    although the last batch is smaller.

    Remedy: Divide by the number of labels that are not -100 if num_items_in_batch is None. In a loop, multiply each
    mean by its number of labels, and divide the sum by that of all labels.

    Warning: The evaluation loss is a mean of batch means, as in every stock Trainer (transformers#39241), or is
    divided by unshifted labels (transformers#46204). Compare losses at one batch size only, and take no perplexity
    from it.
    """
    evaluate = subject.need("evaluate")
    runs = [_LossRun(subject, evaluate(size)) for size in (1, SMALL)]
    small, large = runs
    if not all(math.isfinite(each) for run in runs for each in (run.reported, run.by_token)):
        raise NotChecked(f"a loss is not finite: {small.reported}, {large.reported}")
    measured = {"batch size 1": small.reported, f"batch size {SMALL}": large.reported}
    text = (
        f"eval_loss is {small.reported:.4f} at batch size 1, {large.reported:.4f} at {SMALL}; by token it is "
        f"{large.by_token:.4f}"
    )
    if all(_near(run.reported, run.by_token) for run in runs):
        return passed(f"eval_loss is the mean over tokens, {large.by_token:.4f}, at batch sizes 1 and {SMALL}")
    as_stock = all(any(_near(run.reported, each) for each in run.stock) for run in runs)
    unshifted = all(any(_near(run.reported, each) for each in run.unshifted) for run in runs)
    if _near(small.reported, large.reported) and not as_stock and not unshifted:
        return passed(
            f"eval_loss does not depend on the batch size: {large.reported:.4f}; cross-entropy by token is "
            f"{large.by_token:.4f}",
            measured=measured,
        )
    if all(any(_near(run.reported, each) for each in run.of_sums) for run in runs):
        return fail(
            text,
            cause=f"the loss of a batch is the sum over its tokens, not their mean ({sum(large.counts)} tokens in "
            f"{len(large.counts)} batches): divide it by the number of labels that are not -100",
            measured=measured,
            expected=large.by_token,
        )
    effect = max(abs(run.reported / run.by_token - 1) for run in runs)
    if as_stock:
        cause = (
            f"Trainer averages the means of batches, and not over labelled tokens (off by {effect:.2%} here; "
            "transformers#39241): compare losses only at one batch size, or sum losses and count tokens in "
            "compute_metrics"
        )
    elif unshifted:
        cause = (
            f"the loss is divided by all labels, although the first of each row is never predicted (off by "
            f"{effect:.2%} here; transformers#46204): exp(eval_loss) is no perplexity; batches are averaged (#39241)"
        )
    else:
        cause = f"the loss is weighted or smoothed, or averaged over batches (off by {effect:.2%}; transformers#39241)"
    return warn(text, cause=cause, measured=measured, expected=large.by_token)


class _LossRun:
    """The reported loss of one evaluation, and what it could be.

    Attributes:
        reported: the loss that the evaluation reports.
        by_token: the mean over all labelled tokens.
        stock: the mean of the batches' means, weighted by rows and not weighted. Seq2SeqTrainer does not weight.
        unshifted: as `stock`, but each batch is divided by all labels, also those that are never predicted.
        of_sums: the mean of the batches' sums, weighted by rows and not weighted.
        counts: labelled tokens by batch.
    """

    def __init__(self, subject: Subject, record: EvaluationRecord) -> None:
        self.reported = record.loss
        losses = _token_losses(subject, record)
        sums, self.counts, self.by_token = losses.sums, losses.counts, losses.mean
        rows = [_size(each.batch) for each in record.predictions]
        means = [total / max(count, 1) for total, count in zip(sums, self.counts, strict=True)]
        self.stock = (_mean(means, rows), _mean(means, [1] * len(rows)))
        thin = [total / max(count, 1) for total, count in zip(sums, losses.labels, strict=True)]
        self.unshifted = (_mean(thin, rows), _mean(thin, [1] * len(rows)))
        self.of_sums = (_mean(sums, rows), _mean(sums, [1] * len(rows)))


def _mean(values: Sequence[float], weights: Sequence[int]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def _size(batch: Mapping[str, Any]) -> int:
    return next((len(value) for value in batch.values() if hasattr(value, "dim") and value.dim()), 1)


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= CLOSE * max(abs(one), abs(other), 1e-8)


@dataclass(frozen=True)
class _TokenLosses:
    """Cross-entropies of the labels of an evaluation, by batch.

    Args:
        sums: the sum over the predicted labels.
        counts: the number of predicted labels.
        labels: the number of all labels, also those that a causal model never predicts.
        exponentials: the sum of the exponentials.
    """

    sums: list[float]
    counts: list[int]
    labels: list[int]
    exponentials: list[float]

    @property
    def mean(self) -> float:
        """The mean over all predicted labels."""
        return sum(self.sums) / max(sum(self.counts), 1)


def _token_losses(subject: Subject, record: EvaluationRecord) -> _TokenLosses:
    """Compute the cross-entropy of each label in the batches of an evaluation."""
    import torch

    if not record.predictions:
        raise NotChecked("the evaluation does not use prediction_step: its batches are not known")
    found = _TokenLosses([], [], [], [])
    for each in record.predictions:
        if "labels" not in each.batch:
            raise NotChecked("batches have no labels: the loss by token is not known")
        labels = each.batch["labels"]
        if labels.is_floating_point():
            raise NotChecked("labels are numbers, not classes")
        with torch.no_grad():
            batch = {key: value for key, value in each.batch.items() if key != "num_items_in_batch"}
            logits = getattr(subject.quiet_model(**batch), "logits", None)
        if logits is None or logits.dim() != labels.dim() + 1 or logits.shape[:-1] != labels.shape:
            raise NotChecked("the model gives no logits per label: the loss by token is not known")
        wanted = gold.targets(labels, shifts(subject)) if labels.dim() == 2 else labels
        kept = wanted != IGNORED
        losses = torch.nn.functional.cross_entropy(logits[kept].float(), wanted[kept], reduction="none")
        found.sums.append(float(losses.sum()))
        found.counts.append(len(losses))
        found.labels.append(int((labels != IGNORED).sum()))
        found.exponentials.append(float(losses.double().exp().sum()))
    return found


@probe(
    "perplexity-of-mean-loss",
    group=GROUP,
    says="A reported perplexity is the exponential of the mean loss.",
    loops=False,
)
def perplexity_of_mean_loss(subject: Subject) -> Finding:
    """Compare a metric called perplexity with the exponential of the loss of the same evaluation.

    Fault: The reported perplexity is not exp of the mean loss. A mean of exponentials is larger, and 2 to the power of
    a loss in nats is smaller.

    Causes: exp is taken of each batch or token, and then averaged. Or the base is 2.

    Remedy: Sum the losses and count the tokens over all batches, then `math.exp(total / count)`.

    Warning: The perplexity is near, but not equal: usually exp of a mean over batches, which depends on the batch size
    (transformers#39241).
    """
    record = subject.need("evaluate")(SMALL).need()
    named = {
        key: value
        for key, value in record.metrics.items()
        if {"perplexity", "ppl"} & set(scores.words(key)) and isinstance(value, (int, float))
    }
    if not named:
        raise NotChecked("no metric is called perplexity: exp(eval_loss) outside of the evaluation is not seen")
    losses = _token_losses(subject, record)
    by_token = math.exp(min(losses.mean, 700))
    means = [total / count for total, count in zip(losses.sums, losses.counts, strict=True) if count]
    name, value = next(iter(named.items()))
    figures = {"reported": value, "by token": by_token}
    if abs(value / by_token - 1) < 1e-3:
        return passed(f"{name} is exp of the mean loss by token, {by_token:.4f}")
    others = {
        "the mean of the exponentials of batches: take the exponential of the mean": sum(map(math.exp, means))
        / len(means),
        "the mean of the exponentials of tokens: take the exponential of the mean": sum(losses.exponentials)
        / max(sum(losses.counts), 1),
        "2 to the power of a loss in nats: use exp": 2**losses.mean,
    }
    for cause, other in others.items():
        if abs(value / other - 1) < 1e-3 and abs(other / by_token - 1) > 2e-3:
            return fail(
                f"{name} is {value:.4f}; exp of the mean loss is {by_token:.4f}",
                cause=f"it is {cause}",
                measured=figures,
                expected=by_token,
            )
    return warn(
        f"{name} is {value:.4f}; exp of the mean loss by token is {by_token:.4f}",
        cause="it may be that of a mean over batches, which depends on the batch size (transformers#39241)",
        measured=figures,
        expected=by_token,
    )
