"""Find an activation in front of a loss that has one of its own, such as softmax before cross-entropy.

The cross-entropy of `softmax(logits)` pulls the logits with `w * J (softmax(softmax(logits)) - onehot(y))`, where J is
the Jacobian of the inner softmax. So each mistake leaves its own pattern in the gradient of the logits. A loss that
follows a pattern at all positions in float32, and has its value too, is that loss: focal, smoothed, weighted and margin
losses follow none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from touchstone.auditing.finding import Finding, fail, passed, warn
from touchstone.auditing.subject import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    Pattern = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

Kind = Literal["softmax", "sigmoid", "nothing", "softmax, no logarithm"]
FITS = 1e-7
"""Share of a squared gradient that may stay unexplained. Float32 leaves about 1e-12."""
SAME = 1e-3
"""Losses that agree relatively within this are equal: float32 leaves about 1e-6; the losses compared differ by more."""
NORMAL = 1e-5
"""Probabilities whose sum is 1 within this are probabilities."""
SPARE = 3
"""Numbers that a pattern must explain beyond those that are fitted to it."""
CHUNK = 500_000
"""Logits that are looked at at a time."""
FEW = 20
"""Fewer outputs than these may lie between 0 and 1 by chance."""


@dataclass(frozen=True)
class Applied:
    """A loss that is a cross-entropy apart from a wrong activation.

    Args:
        kind: what is applied to the logits before the loss that does something else or more.
        loss: its value, with the weights that the gradient shows.
        classes: the number of classes.
    """

    kind: Kind
    loss: float
    classes: int

    @property
    def floor(self) -> float:
        """The smallest cross-entropy of numbers between 0 and 1: the label's is 1, all others are 0."""
        return math.log(1 + (self.classes - 1) / math.e)


def as_logits(outputs: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and their gradient for a model that returns probabilities or log-probabilities.

    Logits are returned as they are. A model may end in `log_softmax` and be trained with `nll_loss`, which is
    cross-entropy in two parts.
    """
    kind = _normalized(outputs)
    if kind == "log":
        p = outputs.double().exp()
        return outputs, (gradient.double() - p * gradient.double().sum(-1, keepdim=True)).to(gradient.dtype)
    if kind == "plain":
        p, g = outputs.double(), gradient.double()
        return p.clamp(min=1e-30).log(), p * (g - (p * g).sum(-1, keepdim=True))
    return outputs, gradient


def _normalized(outputs: Tensor) -> str:
    """Return `plain` for probabilities, `log` for their logarithms, and "" for anything else."""
    if outputs.shape[-1] < 2:
        return ""
    found = _form(outputs[:1].double())
    return found if found and _form(outputs.double()) == found else ""  # a vocabulary is large: mostly one row is read


def _form(outputs: Tensor) -> str:
    if bool((outputs >= 0).all()) and bool(((outputs.sum(-1) - 1).abs() < NORMAL).all()):
        return "plain"
    if bool((outputs <= NORMAL).all()) and bool((outputs.logsumexp(-1).abs() < NORMAL).all()):
        return "log"
    return ""


def applied(logits: Tensor, gradient: Tensor, targets: Tensor, squared: Tensor, *, even: bool) -> Applied | None:
    """Return the activation that explains the gradient of some logits, or None.

    Args:
        logits: rows by positions by classes.
        gradient: the gradient of the loss with respect to them.
        targets: the label of each position, -100 where there is none.
        squared: the squared length of each position's gradient.
        even: the gradient has the direction of cross-entropy too, as most have if there are two classes or very many.
            Then labels of one class must have the same weight, as cross-entropy does not give them.
    """
    known = targets != IGNORED
    classes = int(logits.shape[-1])
    if not bool(known.any()) or int(targets[known].max()) >= classes:
        return None
    inside, outside = float(squared[known].sum()), float(squared[~known].sum())
    if not inside or outside > 1e-6 * inside:
        return None
    import torch

    places = torch.split(known.nonzero(), max(1, CHUNK // classes))

    def parts() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for place in places:
            row, position = place[:, 0], place[:, 1]
            yield logits[row, position], gradient[row, position], targets[row, position]

    for kind, pattern in _PATTERNS.items():
        found = _fitted(pattern, parts(), inside)
        if found is None:
            continue
        weights, stiffness, loss = found
        if not even or _even(weights, targets[known], stiffness):
            return Applied(kind, loss, classes)
    return None


def _fitted(
    pattern: Pattern, parts: Iterable[tuple[Tensor, Tensor, Tensor]], inside: float
) -> tuple[Tensor, Tensor, float] | None:
    """Return the weight of each position, how well it is known, and the loss; None if the pattern does not fit.

    Args:
        pattern: what pulls the logits, and the loss of each position.
        parts: logits, gradients and labels of some positions at a time, because vocabularies are large.
        inside: the squared gradient at all of them.
    """
    import torch

    left, loss, weights, stiffness = 0.0, 0.0, [], []
    for logits, gradient, labels in parts:
        g = gradient.double()
        direction, losses = pattern(logits.double(), labels)
        length = (direction * direction).sum(-1).clamp(min=1e-300)
        along = (g * direction).sum(-1)
        weight = along / length
        left += float(((g * g).sum(-1) - along * weight).clamp(min=0).sum())
        if left > FITS * inside or bool((weight < 0).any()):
            return None
        loss += float((weight * losses).sum())
        weights.append(weight)
        stiffness.append(length)
    return torch.cat(weights), torch.cat(stiffness), loss


def _even(weights: Tensor, labels: Tensor, stiffness: Tensor) -> bool:
    """Whether all positions have the same weight, or those with the same label, and there are enough to tell."""
    import torch

    def same(chosen: Tensor) -> bool:
        own, stiff = weights[chosen], stiffness[chosen]
        mean = (own * stiff).sum() / stiff.sum()
        return float((stiff * (own - mean) ** 2).sum()) <= FITS * float((stiff * own * own).sum())

    if len(labels) > SPARE and same(torch.ones_like(labels, dtype=torch.bool)):
        return True
    kinds = torch.unique(labels)
    return len(labels) >= len(kinds) + SPARE and all(same(labels == kind) for kind in kinds)


def _again(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the cross-entropy of some logits pulls them with, and its value."""
    import torch

    one = torch.nn.functional.one_hot(labels, logits.shape[-1])
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return logits.softmax(-1) - one, losses


def _of_softmax(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    p = logits.softmax(-1)
    pull, losses = _again(p, labels)
    return p * (pull - (p * pull).sum(-1, keepdim=True)), losses


def _of_sigmoid(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    p = logits.sigmoid()
    pull, losses = _again(p, labels)
    return p * (1 - p) * pull, losses


def _of_nothing(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    one = torch.nn.functional.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    return -one, -logits.gather(-1, labels[:, None]).squeeze(-1)


def _of_no_logarithm(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    p = logits.softmax(-1)
    own = p.gather(-1, labels[:, None])
    one, _ = _of_nothing(logits, labels)
    return own * (one + p), -own.squeeze(-1)


_PATTERNS: dict[Kind, Pattern] = {
    "softmax": _of_softmax,
    "sigmoid": _of_sigmoid,
    "nothing": _of_nothing,
    "softmax, no logarithm": _of_no_logarithm,
}


def named(heads: list[Applied | None], reported: float | None, where: str = "") -> Finding | None:
    """Return the finding about a loss that has a wrong activation, or None.

    Args:
        heads: what was found for each kind of logits of a batch.
        reported: the loss of the batch, or None if only a part of the batch was read.
        where: the place of the loss, in brackets.
    """
    known = [each for each in heads if each is not None]
    if not known or len(known) < len(heads) or len({each.kind for each in known}) > 1:
        return None
    value = sum(each.loss for each in known)
    if reported is not None and abs(value - reported) > SAME * max(abs(value), abs(reported)):
        return None
    first = known[0]
    figures = {"measured": value if reported is None else reported}
    if first.kind in ("softmax", "sigmoid"):
        return fail(
            f"the logits go through {first.kind} before the cross-entropy, which has a softmax of its own",
            cause=f"the loss and its gradient are those of cross_entropy({first.kind}(logits)), to float precision"
            f"{where}. Numbers between 0 and 1 can never be sure: with {first.classes} classes the loss cannot fall "
            f"below log(1 + {first.classes - 1}/e) = {first.floor:.3f}. Pass the logits themselves",
            **figures,
        )
    if first.kind == "nothing":
        return fail(
            "the loss is minus the logit of the label: nothing normalizes it",
            cause=f"the loss and its gradient are those of nll_loss(logits), to float precision{where}: it falls "
            "without end as all logits grow, and no other class is pushed down. Use cross_entropy(logits), or apply "
            "log_softmax first",
            **figures,
        )
    return warn(
        "the loss is minus the probability of the label: there is no logarithm",
        cause=f"the loss and its gradient are those of nll_loss(softmax(logits)), to float precision{where}: labels "
        "that the model finds impossible have no gradient. Apply log_softmax in place of softmax, unless the expected "
        "accuracy is what you mean to train",
        **figures,
    )


def binary(
    outputs: Tensor, gradient: Tensor, labels: Tensor, reported: float | None = None, where: str = ""
) -> Finding | None:
    """Judge a loss whose labels are numbers from 0 to 1, one per output: binary cross-entropy with logits, or None.

    Each class may have weights for yes and no. The gradient of `sigmoid(sigmoid(logits))` has another form.
    """
    import torch

    z, g, y = (each.double().flatten(0, -2) for each in (outputs, gradient, labels))
    if z.shape != y.shape or bool(((y < 0) | (y > 1)).any()) or not bool(g.any()):
        return None
    p = z.sigmoid()

    def is_that_of(inputs: Tensor, direction: Tensor, weights: Callable[..., Tensor | None]) -> bool:
        found = weights(g, direction, y)
        if found is None or bool((found < 0).any()):
            return False
        losses = torch.nn.functional.binary_cross_entropy_with_logits(inputs, y, reduction="none")
        value = float((found * losses).sum())
        return reported is None or abs(value - reported) <= SAME * abs(value)

    for weights in (_one_weight, _weights_of_classes):
        if is_that_of(z, p - y, weights):
            if z.numel() >= FEW and bool(((z >= 0) & (z <= 1)).all()):
                return warn(
                    "all outputs lie between 0 and 1, and the loss puts them through a sigmoid",
                    cause=f"if the model ends in a sigmoid, probabilities stay between 0.5 and 0.73{where}: return the "
                    "logits, or use BCELoss",
                    measured=[float(z.min()), float(z.max())],
                )
            return passed(f"the loss is the binary cross-entropy of {z.numel()} labels")
        if is_that_of(p, p * (1 - p) * (p.sigmoid() - y), weights):
            return fail(
                "the logits go through a sigmoid before the binary cross-entropy, which has one of its own",
                cause="the gradient is that of binary_cross_entropy_with_logits(sigmoid(logits)), to float precision"
                f"{where}. Probabilities stay between 0.5 and 0.73, so a label of 0 costs at least 0.693: pass the "
                "logits themselves, or use BCELoss",
                measured=[float(p.sigmoid().min()), float(p.sigmoid().max())],
                expected=[0.0, 1.0],
            )
    return None


def _one_weight(gradient: Tensor, direction: Tensor, labels: Tensor) -> Tensor | None:
    """Return the weight that makes a direction a gradient, for each output, or None if it needs several."""
    weight = (gradient * direction).sum() / (direction * direction).sum()
    return _if_exact(gradient, direction, weight.expand_as(labels))


def _weights_of_classes(gradient: Tensor, direction: Tensor, labels: Tensor) -> Tensor | None:
    """Return the weights that make a direction a gradient, one per class and label, or None if these do not do."""
    import torch

    weights, fitted = torch.zeros_like(gradient), 0
    for column in range(labels.shape[-1]):
        for label in torch.unique(labels[:, column]):
            own = labels[:, column] == label
            g, d = gradient[own, column], direction[own, column]
            weights[own, column] = (g * d).sum() / (d * d).sum().clamp(min=1e-300)
            fitted += 1
    return _if_exact(gradient, direction, weights) if gradient.numel() >= fitted + SPARE else None


def _if_exact(gradient: Tensor, direction: Tensor, weights: Tensor) -> Tensor | None:
    left = float(((gradient - weights * direction) ** 2).sum())
    return weights if left < FITS * float((gradient * gradient).sum()) else None
