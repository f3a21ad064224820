"""Losses and hits over a vocabulary, by a plain model: the definition, in slices of any size."""

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
        [2.0, 2.0, 2.0, 1.0, 0.0],  # the first of the likeliest
        [2.0, 2.0, 2.0, 1.0, 0.0],  # the second of them
        [2.0, 0.0, 0.0, 0.0, 1.0],
    ]
)
RIGHT = [True, False, True, False, False]


class Plain(torch.nn.Module):
    """A model that says the same whatever it is asked."""

    def forward(self, **inputs: Any) -> Any:
        return SimpleNamespace(logits=torch.nn.Parameter(LOGITS[None]) * 1.0)


def by_hand(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    return [
        0.0 if label == -100 else math.log(sum(math.exp(each) for each in row)) - row[label]
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]


@pytest.mark.parametrize("size", [1, 7, 10, 2**23])  # less than a row, a row, two of five, all
def test_losses_and_hits_are_by_the_definition_in_slices_of_any_size(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "SLICE", size)
    losses, hits = losses_and_hits(LOGITS, labels=LABELS)

    assert by_hand(LOGITS, LABELS) == pytest.approx(losses.tolist(), rel=1e-6)  # float32
    assert hits.tolist() == RIGHT


def test_a_plain_model_is_asked_at_all_places_or_at_some() -> None:
    everywhere = losses_and_hits_at_positions(Plain(), None, labels=LABELS)
    places = torch.tensor([4, 0])
    some = losses_and_hits_at_positions(Plain(), places, labels=LABELS[places])

    assert everywhere[1].tolist() == RIGHT
    assert not everywhere[0].requires_grad
    for whole, part in zip(everywhere, some, strict=True):
        assert torch.equal(whole[places], part)


def test_halves_are_summed_in_float32() -> None:
    """In bfloat16 a loss would be rounded to one of 256 steps."""
    losses, hits = losses_and_hits(LOGITS.bfloat16(), labels=LABELS)

    assert losses.dtype == torch.float32
    assert by_hand(LOGITS, LABELS) == pytest.approx(losses.tolist(), rel=1e-6)
    assert hits.tolist() == RIGHT


def test_no_labels_have_no_losses() -> None:
    losses, hits = losses_and_hits(torch.zeros(0, 5), labels=torch.zeros(0, dtype=torch.int64))

    assert (tuple(losses.shape), tuple(hits.shape), hits.dtype) == ((0,), (0,), torch.bool)
