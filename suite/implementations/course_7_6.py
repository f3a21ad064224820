"""The Hugging Face course, section 7.6 (15 April 2026): its chunks, `keytoken_weighted_loss`, and `evaluate`.

Written anew with the same behaviour. What the adapter changes:

* `chunk_documents`: the section lets the tokenizer cut (`return_overflowing_tokens`) and keeps the pieces that are
  full. The adapter cuts lists of ids in the same way.
* `key_token_weights`: the weights of the loss alone, without the loss.
* `perplexity`: `evaluate` as on one process, where `accelerator.gather` returns a loss as it is. The adapter takes the
  losses from the arguments instead of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

supports = {"remainder": ["drop"]}


def chunk_documents(documents: Sequence[Sequence[int]], *, length: int) -> list[list[int]]:
    pieces = [
        list(document[start : start + length]) for document in documents for start in range(0, len(document), length)
    ]
    return [piece for piece in pieces if len(piece) == length]


def key_token_weights(input_ids: Sequence[Sequence[int]], *, key_ids: Sequence[int], alpha: float = 1.0) -> Any:
    inputs = torch.as_tensor(input_ids)
    weights = torch.stack([(inputs == key).float() for key in key_ids]).sum(axis=[0, 2])  # type: ignore[call-overload]
    return alpha * (1.0 + weights)


def perplexity(losses: Sequence[float], *, tokens: Sequence[int]) -> float:
    gathered = [torch.tensor(float(loss)) for loss in losses]
    loss = torch.mean(torch.cat(gathered))
    try:
        return torch.exp(loss).item()
    except OverflowError:
        return float("inf")
