"""What is kept of a written text, and the scores that every task that writes has: loss and length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reference.pipelines.pipeline import Score


class WrittenPrediction(NamedTuple):
    """What is kept of one example.

    Attributes:
        text: what was written, of so many tokens (`length`, its end included).
        loss: in nats, a sum over the target's `items` tokens.
    """

    text: str
    length: int
    loss: float
    items: int


def loss_scores(predictions: Sequence[WrittenPrediction], *, batches: int | None, signature: str) -> list[Score]:
    """`loss`, the mean over all tokens; and with `batches` also `trainer_loss`: the mean over batches of so many
    examples, in order, of each batch's mean, which is what transformers' Trainer calls its evaluation loss.
    """
    sums = np.asarray([prediction.loss for prediction in predictions])
    items = np.asarray([prediction.items for prediction in predictions])
    n = int(items.sum())
    scores = [Score("loss", float(sums.sum()) / n, n, False, f"{signature}|mean:token", upper=None)]
    if batches is not None:
        starts = np.arange(0, len(sums), batches)
        means = np.add.reduceat(sums, starts) / np.add.reduceat(items, starts)
        examples = np.diff(np.append(starts, len(sums)))
        value = float(np.average(means, weights=examples))  # Trainer repeats a batch's mean for each of its examples
        scores.append(Score("trainer_loss", value, n, False, f"{signature}|mean:batches of {batches}", upper=None))
    return scores


def length_score(predictions: Sequence[WrittenPrediction], *, signature: str) -> Score:
    """`gen_len`: tokens written for a text, on average. Longer is not better, but a direction must be given."""
    mean = sum(prediction.length for prediction in predictions) / len(predictions)
    return Score("gen_len", mean, len(predictions), True, f"tokens|{signature}", upper=None)
