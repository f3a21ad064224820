"""Find out how a number that a loop reported was computed from the losses of its batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.observing.trace import Forward, Reported, Trace

APART = 4.0
"""Numbers whose difference is more than this many tolerances are told apart."""
KNOWN = 2e-3
"""A number whose last digit is coarser than this part of it says too little."""


@dataclass(frozen=True)
class BatchLoss:
    """The loss of one call of the model.

    Args:
        mean: the mean over its labels.
        labels: the number of its labels.
        rows: the number of its rows.
    """

    mean: float
    labels: int
    rows: int


@dataclass(frozen=True)
class Way:
    """A way to compute a loss from those of several batches.

    Args:
        value: the result.
        says: what it is, to follow "it is".
        remedy: what to do instead.
    """

    value: float
    says: str
    remedy: str

    @property
    def may_be_meant(self) -> bool:
        """Whether it is a sum of losses, which a script may want to print."""
        return self.says.startswith("the sum of the means") and "divided" not in self.says

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean of the batches' means, which is common, and right where batches have equal labels."""
        return self.says.removeprefix("exp of ").startswith("the mean of the batches' means")


def loss_of(forward: Forward) -> BatchLoss | None:
    """Return the loss of a call of the model, or None if it was not seen, or is no plain mean or sum over labels."""
    calls = [each for each in forward.losses if not each.target.is_floating_point()]
    if len(calls) != 1 or len(calls) != len(forward.losses) or calls[0].weighted or calls[0].label_smoothing:
        return None
    call = calls[0]
    labels = int((call.target != call.ignore_index).sum())
    if call.value is None or not labels or call.reduction not in ("mean", "sum"):
        return None
    mean = call.value / labels if call.reduction == "sum" else call.value
    if forward.loss is not None and abs(forward.loss - mean) > 1e-4 * abs(mean):
        return None  # the model adds something, or divides by another number
    first = next((each for each in forward.batch.values() if getattr(each, "ndim", 0) > 0), call.target)
    return BatchLoss(mean, labels, len(first))


def evaluation_before(trace: Trace, reported: Reported) -> tuple[list[Forward], bool]:
    """Return the calls of the evaluation that ended just before a report, and whether all its batches were seen.

    Raises:
        NotChecked: the model was not called without gradients just before the report, or not on a loader's batches.
    """
    found: list[Forward] = []
    for forward in reversed(trace.forwards[: reported.forwards]):
        if forward.grad or forward.generating or (found and forward.passing != found[0].passing):
            break
        found.append(forward)
    if not found or found[0].passing is None:
        raise NotChecked("no evaluation of a loader's batches was seen before the report")
    this = trace.passes[found[0].passing]
    later = trace.forwards[reported.forwards :]
    if this.training or any(each.passing == found[0].passing and not each.grad for each in later):
        raise NotChecked("the report was made before the evaluation was over")
    return found[::-1], this.ended and not this.shortened


def is_near(reported: Reported, value: float) -> bool:
    return math.isfinite(value) and abs(reported.value - value) <= 2 * reported.tolerance


def is_apart(reported: Reported, value: float) -> bool:
    """Whether a reported number is surely not another one."""
    return not math.isfinite(value) or abs(reported.value - value) > APART * reported.tolerance


def says_enough(reported: Reported) -> bool:
    """Whether a reported number has enough digits to tell ways to compute it apart."""
    return math.isfinite(reported.value) and 0 < reported.tolerance <= KNOWN * abs(reported.value)


def mean_by(losses: Sequence[BatchLoss], weights: Sequence[float]) -> float:
    return sum(each.mean * weight for each, weight in zip(losses, weights, strict=True)) / sum(weights)


def by_token(losses: Sequence[BatchLoss]) -> float:
    """Return the mean over all labels."""
    return mean_by(losses, [each.labels for each in losses])
