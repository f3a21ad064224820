"""Dropout whose mask costs little on a CPU.

torch draws a Bernoulli variable an element, one after the other and 3.5 ns each: a sixth of a training step. Fifteen
raw bits an element decide as well, and NumPy's SFC64 gives them at 0.4 ns. The share that is dropped is the nearest
multiple of 2^-15, and what is kept is scaled by the inverse of exactly what that leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

LEVELS = 2**15
ALL_BITS = {2: torch.int16, 4: torch.int32}
"""Bytes of a number, and the integer of as many."""


class MaskSource:
    """Draws masks for one training step after the other. A step's draws depend on what it was seeded with alone."""

    def __init__(self) -> None:
        self._bits = np.random.SFC64(0)

    def seed(self, *key: int) -> None:
        self._bits = np.random.SFC64(np.random.SeedSequence(key))

    def draw(self, shape: torch.Size, *, rate: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Of `shape`, an integer as wide as `dtype`: all bits where kept, none where dropped; see `drop`."""
        integer = ALL_BITS[dtype.itemsize]
        if device.type != "cpu":
            return -(torch.rand(shape, device=device) >= _dropped(rate) / LEVELS).to(integer)
        n = shape.numel()
        raw = torch.from_numpy(self._bits.random_raw((n + 3) // 4).view(np.int16)[:n]).view(shape)
        # In place and without a comparison: less than the threshold is negative, whose sign fills the number.
        kept = raw.bitwise_and_(LEVELS - 1).sub_(_dropped(rate)).bitwise_right_shift_(15).bitwise_not_()
        return kept if integer == torch.int16 else kept.to(integer)


def drop(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What the mask keeps, as it is; what is kept has then to be multiplied by `kept_scale`."""
    return values.view(mask.dtype).bitwise_and(mask).view(values.dtype)


def kept_scale(rate: float) -> float:
    """What keeps the expectation as it was."""
    return LEVELS / max(LEVELS - _dropped(rate), 1)


def _dropped(rate: float) -> int:
    return round(rate * LEVELS)


@contextmanager
def fast_dropout(masks: MaskSource) -> Iterator[None]:
    """Within, `torch.nn.functional.dropout` draws on a CPU from `masks`: it is what models call, by themselves (Marian,
    BART) or through `nn.Dropout`."""
    original = nn.functional.dropout

    def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if not training or p == 0.0:
            return input
        if inplace or not 0.0 < p <= 1.0 or input.device.type != "cpu" or input.dtype.itemsize not in ALL_BITS:
            return original(input, p, training, inplace)
        mask = masks.draw(input.shape, rate=p, dtype=input.dtype, device=input.device)
        output: torch.Tensor = _Drop.apply(input, mask, kept_scale(p))  # type: ignore[no-untyped-call]
        return output

    nn.functional.dropout = dropout
    try:
        yield
    finally:
        nn.functional.dropout = original


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return drop(values.contiguous(), mask).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (mask,) = ctx.saved_tensors
        return drop(gradient.contiguous(), mask).mul_(ctx.scale), None, None
