"""Losses and hits over a vocabulary, at the positions where a pipeline needs them.

A masked language model is scored at one token in seven, and an encoder-decoder not at padded targets. A plain model
computes all logits, and most are thrown away, as in the course. An engine can wrap the model in one that computes only
what is needed: it implements the protocol `ScoresPositions`, and the functions here use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch.nn.functional import cross_entropy

from touchstone.stages.ragged import IGNORED

SLICE = 2**23
"""Logits that are turned into losses at once where hits are needed: 32 MiB in float32."""


@runtime_checkable
class ScoresPositions(Protocol):
    """A model that computes the logits of chosen positions only. Engines implement it; pipelines only call it.

    It stands in for the pipeline's model, so it takes the inputs of the model's `forward`. Both methods get:

    * `positions`: (M,) int64 into the flattened (B, T) of `decoder_input_ids` if there are any, else of `input_ids`.
      None stands for all B * T positions: where nearly all are needed, selecting them would copy the largest tensor.
    * `labels`: (M,) int64. With `positions` None some may be -100: their loss is zero, and they are no hit.
    * `decoder_mask`: (B, T) 1 where `decoder_input_ids` are real; None for models without a decoder. Plain models are
      not given it: padding is on the right, so no real token attends to it.
    """

    def losses_at_positions(
        self,
        positions: torch.Tensor | None,
        *,
        labels: torch.Tensor,
        decoder_mask: torch.Tensor | None = None,
        **inputs: Any,
    ) -> torch.Tensor:
        """Return (M,) float32: the loss of each label, in nats, with a gradient in training."""

    def losses_and_hits_at_positions(
        self,
        positions: torch.Tensor | None,
        *,
        labels: torch.Tensor,
        decoder_mask: torch.Tensor | None = None,
        **inputs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (M,) float32 losses without a gradient, and (M,) bool: whether each label is the likeliest token.

        If several tokens are equally likely, the first of them counts as the likeliest.
        """


def losses_at_positions(
    model: torch.nn.Module,
    positions: torch.Tensor | None,
    *,
    labels: torch.Tensor,
    decoder_mask: torch.Tensor | None = None,
    **inputs: Any,
) -> torch.Tensor:
    """Return (M,) float32: the loss of each label in nats, for any model. See `ScoresPositions` for the arguments."""
    if isinstance(model, ScoresPositions):
        return model.losses_at_positions(positions, labels=labels, decoder_mask=decoder_mask, **inputs)
    logits = _logits(model, positions, **inputs)
    return cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="none")


def losses_and_hits_at_positions(
    model: torch.nn.Module,
    positions: torch.Tensor | None,
    *,
    labels: torch.Tensor,
    decoder_mask: torch.Tensor | None = None,
    **inputs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (M,) float32 losses and (M,) bool hits, for any model, without gradients. See `ScoresPositions`."""
    if isinstance(model, ScoresPositions):
        return model.losses_and_hits_at_positions(positions, labels=labels, decoder_mask=decoder_mask, **inputs)
    with torch.no_grad():
        return losses_and_hits(_logits(model, positions, **inputs), labels=labels)


def _logits(model: torch.nn.Module, positions: torch.Tensor | None, **inputs: Any) -> torch.Tensor:
    """Return (M, V) logits of a plain model; with `positions` None of all B * T positions."""
    logits: torch.Tensor = model(**inputs).logits.flatten(0, 1)
    return logits if positions is None else logits.index_select(0, positions)


def losses_and_hits(logits: torch.Tensor, *, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return losses and hits of (M, V) logits, computed in slices: a float32 copy of all logits may not fit."""
    rows = max(SLICE // logits.shape[1], 1)
    losses, hits = [], []
    for piece, label in zip(torch.split(logits, rows), torch.split(labels, rows), strict=True):
        piece = piece.float()
        losses.append(cross_entropy(piece, label, ignore_index=IGNORED, reduction="none"))
        hits.append(piece.argmax(-1) == label)
    return torch.cat(losses), torch.cat(hits)


@contextmanager
def hidden_state_hook(model: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Apply `change` to the hidden states between the model's body and its head, such as (B, T, H) to (B, M, H)."""
    body = model.base_model
    if body is model:  # T5 has no body module: the encoder and decoder are in the model with the head
        body = model.get_decoder()

    def hand_over(module: torch.nn.Module, args: Any, output: Any) -> Any:
        output["last_hidden_state"] = change(output["last_hidden_state"])
        return output

    hook = body.register_forward_hook(hand_over)
    try:
        yield
    finally:
        hook.remove()
