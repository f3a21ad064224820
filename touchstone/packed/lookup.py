"""Embedding whose gradient is the rows that were looked up, and not a table of zeros with these rows in it.

`nn.Embedding` gives the optimizer a gradient as large as its table: BERT's is half of all it has, of which a batch
touches one row in a hundred. To make it, fill it with zeros and throw it away takes longer than the arithmetic of a
small batch. Here the rows are kept, to be added to a gradient that lives on (`weights`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

LARGE = 2**20
"""Elements of a table from which on it pays. Smaller ones (positions, token types) stay as they are."""


class Lookup(nn.Module):
    """Takes the place of an `nn.Embedding`, and shares its weight.

    Attributes:
        dtype: of what it gives; None: that of the weight.
        found: (ids, gradient of what was looked up) of each backward pass since `found` was emptied.
        handed: what the next calls give, one after the other, instead of looking it up (see `recording`).
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight
        self.padding_idx = embedding.padding_idx
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.dtype: torch.dtype | None = None
        self.found: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.handed: list[torch.Tensor] = []

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.handed:
            return self.handed.pop(0)
        rows: torch.Tensor = _LookUp.apply(self.weight, input, self)  # type: ignore[no-untyped-call]
        return rows

    def note(self, ids: torch.Tensor, gradient: torch.Tensor) -> None:
        ids, gradient = ids.flatten(), gradient.flatten(0, -2)
        if self.padding_idx is not None:  # as in nn.Embedding, the padding's row does not learn
            gradient = gradient.masked_fill((ids == self.padding_idx)[:, None], 0.0)
        self.found.append((ids, gradient))


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, ids: torch.Tensor, lookup: Lookup) -> torch.Tensor:
        ctx.lookup = lookup
        ctx.save_for_backward(ids)
        return nn.functional.embedding(ids, weight).to(lookup.dtype or weight.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (ids,) = ctx.saved_tensors
        ctx.lookup.note(ids, gradient)
        return None, None, None


def is_large_table(module: nn.Module) -> bool:
    """Whether a `Lookup` should take the place of this module."""
    return type(module) is nn.Embedding and module.weight.requires_grad and module.weight.numel() >= LARGE
