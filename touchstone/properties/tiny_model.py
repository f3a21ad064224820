"""A tiny transformer in NumPy: one attention layer, to see what a batch means to a model.

Checks of padding and packing ask whether a model computes the same from a batch as from single rows. Any model with
attention, positions and a label per token shows that. This one runs in float64 and needs no torch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from touchstone.properties.oracles import IGNORED

VOCABULARY, POSITIONS, WIDTH, LABELS = 16, 64, 16, 5
Floats = npt.NDArray[np.float64]


@cache
def _weights() -> dict[str, Floats]:
    """Return weights drawn from seed 0, so large that attention to a wrong token changes every logit."""
    generator = np.random.default_rng(0)
    shapes = {
        "words": (VOCABULARY, WIDTH), "positions": (POSITIONS, WIDTH), "query": (WIDTH, WIDTH), "key": (WIDTH, WIDTH),
        "value": (WIDTH, WIDTH), "head": (WIDTH, LABELS),
    }  # fmt: skip
    return {name: generator.normal(scale=0.5, size=shape) for name, shape in shapes.items()}


def logits(input_ids: Any, *, positions: Any, visible: Any) -> Floats:
    """Return (B, T, 5) logits.

    Args:
        input_ids: (B, T) token ids below 16.
        positions: (B, T) positions below 64.
        visible: (B, T, T) or (B, 1, T), True where a token (row) may attend to another (column); at least one per row.
    """
    weights = _weights()
    hidden = weights["words"][np.asarray(input_ids)] + weights["positions"][np.asarray(positions)]
    scores = (hidden @ weights["query"]) @ (hidden @ weights["key"]).swapaxes(1, 2)
    scores = np.where(visible, scores / np.sqrt(WIDTH), -np.inf)
    attention = np.exp(scores - scores.max(axis=-1, keepdims=True))
    attention /= attention.sum(axis=-1, keepdims=True)
    result: Floats = np.tanh(hidden + attention @ hidden @ weights["value"]) @ weights["head"]
    return result


def loss(logits: Floats, labels: Any) -> tuple[float, int]:
    """Return the sum of the token losses in nats and their number. Labels of -100 are ignored."""
    labels = np.asarray(labels)
    kept = labels != IGNORED
    chosen = logits[kept]
    normalizers = np.log(np.exp(chosen).sum(axis=-1))
    losses = normalizers - chosen[np.arange(len(chosen)), labels[kept]]
    return float(losses.sum()), int(kept.sum())
