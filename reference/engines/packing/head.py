"""The loss over a vocabulary, without the tensors that cross entropy leaves behind.

Of M tokens over V words, `cross_entropy(linear(x))` makes logits, their float32 copy, log-probabilities and two
gradients, (M, V) each: for a batch of programs a gigabyte that is written and read once. Here one (M, V) tensor goes
from logits to probabilities to the gradient in place, in slices that stay in a cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from reference.ragged import IGNORED

CACHED = 2**20
"""Elements of a slice: 4 MiB in float32."""


class Head(nn.Linear):
    """Takes the place of a model's last layer, and shares its weights. Within `losses` it returns no logits."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._labels: torch.Tensor | None = None
        self._extra: torch.Tensor | None = None

    @contextmanager
    def losses(self, labels: torch.Tensor, *, extra_bias: torch.Tensor | None = None) -> Iterator[None]:
        """Within, `forward` takes (1, M, H) and returns (1, M, 1) float32: the loss of each of the M labels, zero where
        it is -100.

        Args:
            extra_bias: (V,) what the model adds to the logits afterwards; it has no gradient.
        """
        self._labels, self._extra = labels, extra_bias
        try:
            yield
        finally:
            self._labels = self._extra = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self._labels is None:
            return super().forward(input)
        bias: torch.Tensor | None = self.bias
        if self._extra is not None:
            bias = self._extra.to(input.dtype) if bias is None else bias + self._extra.to(input.dtype)
        losses: torch.Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            input.flatten(0, -2), self.weight, bias, self._labels, torch.is_grad_enabled()
        )
        return losses[None, :, None]


class _LinearCrossEntropy(torch.autograd.Function):
    """-log softmax(x W^T + b)[label] of each row, in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        learns: bool,
    ) -> torch.Tensor:
        logits = nn.functional.linear(x, weight, bias)  # (M, V)
        # The places below would be another row's. A GPU checks it on its way, without anyone waiting for it.
        torch._assert_async((labels < logits.shape[1]).all(), "a label is out of bounds: the head has fewer words")
        losses = torch.empty(len(labels), dtype=torch.float32, device=x.device)
        rows = max(CACHED // max(logits.shape[1], 1), 1)
        if x.device.type != "cpu":
            rows = max(len(labels), 1)  # a GPU is slow at many small calls, and has the bandwidth
        for start in range(0, len(labels), rows):
            piece, label = logits[start : start + rows], labels[start : start + rows].clamp(min=0)
            logs = torch.log_softmax(piece.float(), -1)
            # By place in the flattened table: `scatter_` has no deterministic way on CUDA but one that waits for it.
            place = torch.arange(len(label), device=x.device) * logs.shape[1] + label
            right = logs.view(-1).index_select(0, place)
            losses[start : start + rows] = -right
            if not learns:  # an evaluation: what follows is for the gradient
                continue
            # Now what the gradient needs: softmax less one at the label, subtracted before it is rounded.
            logs.exp_().view(-1).index_copy_(0, place, torch.expm1(right))
            piece.copy_(logs)
        ignored = labels == IGNORED
        ctx.save_for_backward(x, weight, logits, ignored)
        return losses.masked_fill_(ignored, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, weight, logits, ignored = ctx.saved_tensors
        d_logits = logits.mul_(gradient.masked_fill(ignored, 0.0)[:, None].to(logits.dtype))
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        return (
            d_logits @ weight if needs_x else None,
            d_logits.t() @ x if needs_weight else None,
            d_logits.sum(0) if needs_bias else None,
            None,
            None,
        )
