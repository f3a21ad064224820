"""A large linear layer for few rows at a time, again and again with the same weights.

A CPU's kernels want a matrix of weights in an order of their own, and put it there in every call: for 32 rows that
takes as long as the product itself. Here it is put there once, as torch's own compiler does.
"""

from __future__ import annotations

import torch
from torch.nn.functional import linear


class Projection:
    """x W^T + b of (N, I), as `linear` has it. The weights are those of the moment it was made.

    Args:
        weight: (O, I).
        bias: (O,).
        rows: N, about; any other number is right, too.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, *, rows: int) -> None:
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.reordered: torch.Tensor | None = None
        if can_be_reordered(weight):
            self.reordered = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.reordered is None:
            return linear(x, self.weight, self.bias)
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.reordered, self.bias, "none", [], "")
        return output


def can_be_reordered(weight: torch.Tensor) -> bool:
    """In float32 there is nothing to be won. Not every build of torch has these operators."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
