"""Losses and hits over a vocabulary with a plain model."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from touchstone.pipelines import vocabulary
from touchstone.pipelines.vocabulary import losses_and_hits, losses_and_hits_at_positions

LABELS = torch.tensor([2, -100, 0, 1, 4])
LOGITS = torch.tensor(
    [
        [0.0, 1.0, 3.0, 1.0, 0.0],
        [5.0, 1.0, 1.0, 1.0, 1.0],
        [2.0, 2.0, 2.0, 1.0, 0.0],  # the first of several most likely ones
        [2.0, 2.0, 2.0, 1.0, 0.0],  # the second of them
        [2.0, 0.0, 0.0, 0.0, 1.0],
    ]
)
RIGHT = [True, False, True, False, False]


class Plain(torch.nn.Module):
    """A model with the same logits for all inputs."""

    def forward(self, **inputs: Any) -> Any:
        return SimpleNamespace(logits=torch.nn.Parameter(LOGITS[None]) * 1.0)


def losses_by_hand(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    return [
        0.0 if label == -100 else math.log(sum(math.exp(each) for each in row)) - row[label]
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]


@pytest.mark.parametrize("size", [1, 7, 10, 2**23])  # less than a row, a row, two of five, all
def test_losses_and_hits_equal_the_definition_in_slices_of_any_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "SLICE", size)
    losses, hits = losses_and_hits(LOGITS, labels=LABELS)

    assert losses.tolist() == pytest.approx(losses_by_hand(LOGITS, LABELS), rel=1e-6)  # float32
    assert hits.tolist() == RIGHT


def test_losses_and_hits_at_positions_gives_the_same_at_all_positions_and_at_some() -> None:
    everywhere = losses_and_hits_at_positions(Plain(), None, labels=LABELS)
    positions = torch.tensor([4, 0])
    some = losses_and_hits_at_positions(Plain(), positions, labels=LABELS[positions])

    assert everywhere[1].tolist() == RIGHT
    assert not everywhere[0].requires_grad
    for whole, part in zip(everywhere, some, strict=True):
        assert torch.equal(whole[positions], part)


def test_losses_and_hits_computes_in_float32() -> None:
    """In bfloat16 a loss would have a relative rounding error of 2**-9."""
    losses, hits = losses_and_hits(LOGITS.bfloat16(), labels=LABELS)

    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx(losses_by_hand(LOGITS, LABELS), rel=1e-6)
    assert hits.tolist() == RIGHT


def test_losses_and_hits_takes_no_labels() -> None:
    losses, hits = losses_and_hits(torch.zeros(0, 5), labels=torch.zeros(0, dtype=torch.int64))

    assert (tuple(losses.shape), tuple(hits.shape), hits.dtype) == ((0,), (0,), torch.bool)
