"""Find which logits a loss scores, what is padding in a batch of a model of one's own, and where its targets stand.

Models of one's own have their own names, put time or rows first, and get their targets from slices that the script
cuts. Nothing is assumed here: a slice is found by comparing the numbers that the loss got with those that the model
returned, and a shift by comparing targets with the ids that the model got.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from touchstone.auditing.reading.loss import FITS
from touchstone.auditing.subject import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from touchstone.auditing.observing.trace import LossCall

SAME = 0.98
"""Share of targets that must be ids of the input, moved, to count as the moved input; unknown words may differ."""
ENOUGH = 20
"""Fewer targets than these prove no shift."""
RUNS = 3
"""Sequences that end in a run of one id, so that it counts as padding."""
SHIFTS = (1, 0, 2, -1)


def targets_of(logits: Tensor, call: LossCall) -> Tensor | None:
    """Return the targets of a loss at the places of the logits that it scored, -100 where it scored none.

    Args:
        logits: what the model returned, classes last.
        call: the call of the loss, with its input.
    """
    import torch

    given, target = call.given, call.target
    if given is None or logits.dim() not in (2, 3) or target.is_floating_point():
        return None
    classes = logits.shape[-1]
    if given.dim() == 3 and given.shape[1] == classes and given.shape[2] == target.shape[-1]:
        given = given.transpose(1, 2)
    if given.shape[-1] != classes:
        return None
    given, target = given.reshape(-1, classes), target.reshape(-1)
    target = torch.where(target == call.ignore_index, IGNORED, target)
    for window in _windows(logits):
        part = logits[window]
        for swapped in (False, True) if part.dim() == 3 else (False,):
            flat = (part.transpose(0, 1) if swapped else part).reshape(-1, classes)
            if flat.shape == given.shape and _equal(flat, given):
                result = torch.full(logits.shape[:-1], IGNORED, dtype=target.dtype)
                placed = target.reshape(part.transpose(0, 1).shape[:-1] if swapped else part.shape[:-1])
                result[window] = placed.transpose(0, 1) if swapped else placed
                return result
    return None


def _windows(logits: Tensor) -> Iterator[tuple[slice, ...]]:
    """Yield the parts of the positions that a loss may score: all, or all but the first or last along an axis."""
    yield (slice(None),)
    for axis in range(logits.dim() - 1):
        for part in (slice(1, None), slice(None, -1)):
            yield (slice(None),) * axis + (part,)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Tell whether logits are equal, or equal after a log-softmax."""
    import torch

    if torch.equal(one, other):
        return True
    first = one[:1].float().log_softmax(-1)
    if not torch.allclose(first, other[:1].float(), atol=1e-5):
        return False
    return torch.allclose(one.float().log_softmax(-1), other.float(), atol=1e-5)


def learned_targets(logits: Tensor, gradient: Tensor) -> Tensor | None:
    """Return the targets that a gradient pulls logits to, -100 where there is none, or None if it is no cross-entropy.

    The gradient of a cross-entropy, however it is computed, is `softmax(logits) - onehot(target)` times a weight.

    >>> import torch
    >>> logits = torch.randn(2, 5, requires_grad=True)
    >>> (-logits.log_softmax(-1)[0, 3]).backward()
    >>> learned_targets(logits.detach(), logits.grad)
    tensor([   3, -100])
    """
    import torch

    if logits.shape != gradient.shape or logits.dim() not in (2, 3) or logits.shape[-1] < 3:
        return None
    found, left, total = [], 0.0, 0.0
    for z, g in zip(logits, gradient, strict=True):
        g = g.double()
        target = g.argmin(-1)
        pull = z.double().softmax(-1)
        pull.scatter_add_(-1, target.unsqueeze(-1), torch.full_like(pull[..., :1], -1.0))
        weight = ((g * pull).sum(-1) / pull.pow(2).sum(-1).clamp_min(1e-12)).clamp_min(0.0)
        left += float((g - weight.unsqueeze(-1) * pull).pow(2).sum())
        total += float(g.pow(2).sum())
        found.append(target.masked_fill(weight == 0, IGNORED))
    return torch.stack(found) if total and left <= FITS * total else None


@dataclass(frozen=True)
class Shift:
    """The targets are the ids of an argument, moved along an axis.

    Args:
        axis: the axis of time; any if they are not moved.
        by: the target at place p is the id at p + `by`.
    """

    axis: int
    by: int


def shift_of(ids: Tensor, targets: Tensor) -> Shift | None:
    """Return how targets are moved against ids of the same shape, or None if they are not these ids.

    >>> import torch
    >>> ids = torch.randint(1000, (4, 12))
    >>> shift_of(ids[:, :-1], ids[:, 1:])
    Shift(axis=1, by=1)
    """
    if ids.shape != targets.shape or ids.dim() != 2:
        return None
    for by in SHIFTS:
        for axis in (1, 0):
            size = ids.shape[axis] - abs(by)
            if size < 2:
                continue
            wanted = targets.narrow(axis, max(-by, 0), size)
            there = ids.narrow(axis, max(by, 0), size)
            known = wanted != IGNORED
            if int(known.sum()) < ENOUGH or len(set(wanted[known].tolist())) < 4:
                continue
            if float((wanted == there)[known].float().mean()) >= SAME:
                return Shift(axis, by)
    return None


def padding_id(batches: Sequence[Tensor]) -> tuple[int, int] | None:
    """Return the id that pads the batches of an argument and the axis of time, or None if there is none.

    Sequences of different lengths end in runs of one id, and this id stands nowhere before them.

    >>> import torch
    >>> padding_id([torch.tensor([[5, 6, 7, 9], [6, 0, 0, 0], [7, 5, 0, 0], [5, 9, 0, 0]])])
    (0, 1)
    """
    for axis in (1, 0):
        found = _padding(batches, axis)
        if found is not None:
            return found, axis
    return None


def _padding(batches: Sequence[Tensor], axis: int) -> int | None:
    last: list[int] = []
    for batch in batches:
        last += batch.select(axis, batch.shape[axis] - 1).tolist()
    if not last:
        return None
    pad = max(set(last), key=last.count)
    lengths = []
    for batch in batches:
        rows = batch if axis == 1 else batch.t()
        own = (rows != pad).long()
        kept = own.sum(1)
        # Everything before the run is no padding: the ids that are not `pad` come first.
        after_end = (own.cumsum(1) == kept[:, None]) & (own == 0)
        if bool((~after_end & (own == 0) & (kept[:, None] > 0)).any()):
            return None
        lengths += (rows.shape[1] - kept).tolist()
    runs = [each for each in lengths if each > 1]
    return pad if len(runs) >= RUNS and len(set(lengths)) > 1 else None


def padded(ids: Tensor, pad: int, axis: int) -> Tensor:
    """Return where ids are padding for certain: behind another padding id, as the first of a run may end the text."""
    import torch

    here = ids == pad
    before = torch.zeros_like(here)
    size = ids.shape[axis]
    before.narrow(axis, 1, size - 1).copy_(here.narrow(axis, 0, size - 1))
    return here & before
