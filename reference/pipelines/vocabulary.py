"""Losses and hits over a vocabulary, at the places where they are wanted.

Masked language models are asked about one token in seven, and an encoder-decoder's padded targets not at all. A plain
model computes all logits and most are thrown away, as in the course; a model that can do without (`losses_at`,
`losses_and_hits_at` of its own) does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from touchstone.pipelines.pipeline import Score
from touchstone.stages.ragged import IGNORED
from touchstone.stages.scoring import perplexity

SLICE = 2**23
"""Logits that are turned into losses together where hits are wanted: 32 MiB in float32."""


def losses_at(
    model: torch.nn.Module,
    places: torch.Tensor | None,
    *,
    labels: torch.Tensor,
    decoder_mask: torch.Tensor | None = None,
    **inputs: Any,
) -> torch.Tensor:
    """(M,) float32, in nats: the loss of each of the labels (M,) at these places.

    Args:
        places: (M,) int64 into the flattened (B, T) of what is predicted: `decoder_input_ids` where there are some,
            else `input_ids`. None: all B * T, and the loss is zero where the label is -100. Where nearly all are
            wanted, to choose them would be another copy of the largest tensor there is.
        decoder_mask: (B, T) 1 where `decoder_input_ids` are real. A plain model needs none: padded on the right, no
            real token sees padding.
        inputs: of the model's `forward`.
    """
    if own := cast(Any, getattr(model, "losses_at", None)):
        found: torch.Tensor = own(places, labels=labels, decoder_mask=decoder_mask, **inputs)
        return found
    logits = _logits(model, places, **inputs)
    return cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="none")


def losses_and_hits_at(
    model: torch.nn.Module,
    places: torch.Tensor | None,
    *,
    labels: torch.Tensor,
    decoder_mask: torch.Tensor | None = None,
    **inputs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What an evaluation asks of a vocabulary: (M,) float32 losses as `losses_at` gives them, without a gradient, and
    (M,) bool whether the label is the likeliest token, the first of them where several are as likely; no hit where the
    label is -100.
    """
    if own := cast(Any, getattr(model, "losses_and_hits_at", None)):
        found: tuple[torch.Tensor, torch.Tensor] = own(places, labels=labels, decoder_mask=decoder_mask, **inputs)
        return found
    with torch.no_grad():
        return losses_and_hits(_logits(model, places, **inputs), labels=labels)


def _logits(model: torch.nn.Module, places: torch.Tensor | None, **inputs: Any) -> torch.Tensor:
    """(M, V) of a plain model; with `places` None at all B * T."""
    logits: torch.Tensor = model(**inputs).logits.flatten(0, 1)
    return logits if places is None else logits.index_select(0, places)


def losses_and_hits(logits: torch.Tensor, *, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See `losses_and_hits_at`, of (M, V) logits: some rows at a time, for their float32 copies fill memories."""
    rows = max(SLICE // logits.shape[1], 1)
    losses, hits = [], []
    for piece, label in zip(torch.split(logits, rows), torch.split(labels, rows), strict=True):
        piece = piece.float()
        losses.append(cross_entropy(piece, label, ignore_index=IGNORED, reduction="none"))
        hits.append(piece.argmax(-1) == label)
    return torch.cat(losses), torch.cat(hits)


@contextmanager
def before_head(model: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Within, what the model's body gives its last layers goes through `change`: (B, T, H) to (B, M, H), say."""
    body = model.base_model
    if body is model:  # T5's encoder and decoder have no model around them but the one with the head
        body = model.get_decoder()

    def hand_over(module: torch.nn.Module, args: Any, output: Any) -> Any:
        output["last_hidden_state"] = change(output["last_hidden_state"])
        return output

    hook = body.register_forward_hook(hand_over)
    try:
        yield
    finally:
        hook.remove()


class ChunkPrediction(NamedTuple):
    """The prediction of a language model for one chunk of text.

    Attributes:
        loss: in nats, summed over the chunk's `items` predicted tokens.
        right: the number of these tokens that were the most likely ones.
    """

    loss: float
    right: int
    items: int


def language_model_scores(
    predictions: Sequence[ChunkPrediction], *, chunks: int, accuracy: str, settings: str, no_items: str
) -> list[Score]:
    """Return perplexity, loss and accuracy over all predicted tokens of the validation split.

    Args:
        predictions: one per chunk.
        chunks: the number of chunks in the split.
        accuracy: the name of the accuracy score.
        settings: the part of the signatures that all three share.
        no_items: the error message if no token was predicted.

    Raises:
        ValueError: a wrong number of predictions, or no predicted token in any of them.
    """
    if len(predictions) != chunks:
        raise ValueError(f"{len(predictions)} predictions for {chunks} validation chunks: pass one per chunk")
    sums = np.asarray([prediction.loss for prediction in predictions])
    items = np.asarray([prediction.items for prediction in predictions])
    n = int(items.sum())
    if n == 0:
        raise ValueError(no_items)
    right = sum(prediction.right for prediction in predictions)
    value = perplexity((sums / np.maximum(items, 1)).tolist(), tokens=items.tolist())
    return [
        Score("perplexity", value, n, False, f"perplexity|{settings}", lower=1.0, upper=None),
        Score("loss", float(sums.sum()) / n, n, False, f"nll|unit:nat|{settings}", upper=None),
        Score(accuracy, right / n, n, True, f"accuracy|{settings}"),
    ]
