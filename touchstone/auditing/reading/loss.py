"""Read a loss off the gradient of its logits: which target each position learns, and with which weight.

The cross-entropy of one position against target y, times a weight w, pulls its logits with the gradient
`w * (softmax(logits) - onehot(y))`; label smoothing moves the target towards the uniform distribution. So the gradient
tells the target, the weight and the smoothing at every position, whatever code computed the loss. What does not have
this form is another loss (focal, CRF, distillation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from touchstone.auditing.reading.activated import Applied, applied, as_logits
from touchstone.auditing.subject import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

FITS = 1e-7
"""Share of a squared gradient that may stay unexplained. Float32 leaves about 1e-14; other losses leave far more."""
SILENT = 1e-12
"""Share of the squared gradient below which unlabelled positions count as silent. Cross-entropy gives exactly 0."""
EXACT = 1e-12
"""Misfit below which no other explanation is looked for."""
SHIFTS = (0, 1, 2, -1)


@dataclass
class Reading:
    """The loss of one batch, position by position. All tensors have one entry per logit position.

    Args:
        shift: position p learns the label at p + shift.
        targets: that label, -100 where there is none.
        smoothing: the label smoothing that explains the gradient best.
        misfit: the share of the squared gradient at labelled positions that weights cannot explain.
        weights: the weight of each labelled position; 0 elsewhere.
        stiffness: the squared length of `softmax - target`: how well each weight is known.
        stray: the share of the squared gradient that lies at unlabelled positions.
        strays: the number of unlabelled positions that have a gradient.
        stray_target: the label that unlabelled positions learn, None if they learn none or several.
        stray_uniform: unlabelled positions are pulled towards the uniform distribution (smoothing is applied there).
        applied: the activation before the loss that explains the gradient where cross-entropy does not, or None.
    """

    shift: int
    targets: Tensor
    smoothing: float
    misfit: float
    weights: Tensor
    stiffness: Tensor
    stray: float
    strays: int = 0
    stray_target: int | None = None
    stray_uniform: bool = False
    applied: Applied | None = None

    @property
    def labelled(self) -> Tensor:
        """The positions that have a target."""
        return self.targets != IGNORED

    @property
    def count(self) -> int:
        """The number of labelled positions."""
        return int(self.labelled.sum())

    def common_weight(self, where: Tensor | None = None) -> tuple[float, float]:
        """Return the one weight that explains the labelled positions (in `where`) best, and its misfit."""
        chosen = self.labelled if where is None else self.labelled & where
        weights, stiffness = self.weights[chosen], self.stiffness[chosen]
        total = float((stiffness * weights**2).sum())
        if total == 0:
            return 0.0, 0.0
        weight = float((stiffness * weights).sum() / stiffness.sum())
        return weight, float((stiffness * (weights - weight) ** 2).sum()) / total


def read_loss(
    logits: Tensor, gradient: Tensor, labels: Tensor, *, smoothing: float = 0.0, shifts: Sequence[int] = SHIFTS
) -> Reading:
    """Return the reading of one batch.

    Args:
        logits: rows by positions by classes.
        gradient: the gradient of the loss with respect to them.
        labels: rows by positions.
        smoothing: the label smoothing that the settings ask for.
        shifts: the shifts to try, the expected one first.
    """
    import torch

    # Virtual tokens of prompt tuning come first and have no label.
    logits, gradient = logits[:, -labels.shape[1] :], gradient[:, -labels.shape[1] :]
    logits, gradient = as_logits(logits, gradient)
    sums = _Sums(logits, gradient)
    candidates = [(shift, share) for shift in shifts for share in dict.fromkeys((smoothing, 0.0))]
    best: Reading | None = None
    for shift, share in [*candidates, *((shift, None) for shift in shifts)]:
        targets = moved(labels, shift)
        if not bool((targets != IGNORED).any()):
            continue
        reading = sums.fit(targets, shift, share)
        # A model that has learned little is near the uniform distribution, where smoothing changes hardly more than the
        # weight: only an exact fit tells them apart.
        if best is None or _unexplained(reading) < 0.1 * _unexplained(best) - EXACT:
            best = reading
        if _unexplained(best) < EXACT:
            break
    if best is None:
        none = torch.zeros(labels.shape, dtype=torch.float64, device=labels.device)
        best = Reading(0, torch.full_like(labels, IGNORED), 0.0, 0.0, none, none, 1.0)
    if best.stray > SILENT:
        sums.look_at_strays(best)
    if best.misfit > FITS or best.common_weight()[1] > FITS:
        even = best.misfit <= FITS
        likely = dict.fromkeys((best.shift, *shifts[:2]))
        tried = (applied(logits, gradient, moved(labels, shift), sums.gg, even=even) for shift in likely)
        best.applied = next((each for each in tried if each is not None), None)
    return best


def _unexplained(reading: Reading) -> float:
    return reading.misfit * (1 - reading.stray) + reading.stray


def moved(labels: Tensor, shift: int) -> Tensor:
    """Return for each position the label at `position + shift`, -100 where there is none.

    >>> import torch
    >>> moved(torch.tensor([[5, 6, 7]]), 1)
    tensor([[   6,    7, -100]])
    """
    if shift == 0:
        return labels
    result = labels.new_full(labels.shape, IGNORED)
    if shift > 0:
        result[:, :-shift] = labels[:, shift:]
    else:
        result[:, -shift:] = labels[:, :shift]
    return result


class _Sums:
    """Sums over classes that all fits share, in float64, computed row by row because vocabularies are large."""

    def __init__(self, logits: Tensor, gradient: Tensor) -> None:
        import torch

        self.classes = logits.shape[-1]
        self.logits, self.gradient = logits, gradient
        parts = []
        for z, g in zip(logits, gradient, strict=True):
            z, g = z.double(), g.double()
            p = torch.softmax(z, dim=-1)
            parts.append(torch.stack([(g * p).sum(-1), (g * g).sum(-1), (p * p).sum(-1), g.sum(-1), z.logsumexp(-1)]))
        self.gp, self.gg, self.pp, self.g, self.normalizer = torch.stack(parts, dim=1)

    def at(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient and the probability of each position's target."""
        index = targets.clamp(min=0, max=self.classes - 1).unsqueeze(-1)
        gradient, logit = (each.gather(-1, index).squeeze(-1).double() for each in (self.gradient, self.logits))
        return gradient, (logit - self.normalizer).exp()

    def fit(self, targets: Tensor, shift: int, smoothing: float | None) -> Reading:
        """Fit a weight per position, and one smoothing for all if it is None."""
        known = targets != IGNORED
        total = float(self.gg.sum())
        inside = float(self.gg[known].sum())
        if smoothing is None:
            smoothing = self._smoothing(targets, known)
        gt, pt = self.at(targets)
        uniform = smoothing / self.classes
        along = self.gp - (1 - smoothing) * gt - uniform * self.g
        square = (
            self.pp
            - 2 * ((1 - smoothing) * pt + uniform)
            + (1 - smoothing) ** 2
            + 2 * (1 - smoothing) * uniform
            + smoothing * uniform
        ).clamp(min=1e-12)
        weights = (along / square).masked_fill(~known, 0.0)
        left = float((self.gg - along * along / square)[known].clamp(min=0).sum())
        misfit = left / inside if inside else 1.0
        stray = float(self.gg[~known].sum()) / total if total else 0.0
        return Reading(shift, targets, smoothing, misfit, weights, square.masked_fill(~known, 0.0), stray)

    def _smoothing(self, targets: Tensor, known: Tensor) -> float:
        """Return the smoothing that a fit with two free numbers per position finds: w (p - y) + v (y - uniform)."""
        weight, pull, stiffness = self._two(targets)
        used = known & (stiffness > 1e-9) & (weight.abs() > 0)
        if self.classes < 3 or not bool(used.any()):
            return 0.0
        share = float((pull[used] / weight[used]).median())
        return share if 0 < share < 1 else 0.0

    def _two(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gt, pt = self.at(targets)
        aa = self.pp - 2 * pt + 1
        ab = pt - 1
        bb = 1 - 1 / self.classes
        ga = self.gp - gt
        gb = gt - self.g / self.classes
        determinant = aa * bb - ab * ab
        safe = determinant.clamp(min=1e-12)
        return (ga * bb - gb * ab) / safe, (gb * aa - ga * ab) / safe, determinant

    def look_at_strays(self, reading: Reading) -> None:
        """Find out what unlabelled positions learn."""
        import torch

        floor = SILENT * float(self.gg.sum()) / max(int((~reading.labelled).sum()), 1)
        stray = ~reading.labelled & (self.gg > floor)
        reading.strays = int(stray.sum())
        if not reading.strays or self.classes < 3:
            return
        pulled = self.gradient.argmin(-1)
        weight, pull, _ = self._two(pulled)
        gt, _ = self.at(pulled)
        explained = weight * (self.gp - gt) + pull * (gt - self.g / self.classes)
        left = float((self.gg - explained)[stray].clamp(min=0).sum()) / float(self.gg[stray].sum())
        if left > FITS:
            return
        share = pull[stray] / weight[stray]
        if bool((share > 0.9).all()):
            reading.stray_uniform = True
        elif bool((weight[stray] > 0).all()):
            seen = torch.unique(pulled[stray])
            reading.stray_target = int(seen[0]) if len(seen) == 1 else None
