"""Targets, shifts and padding of models of one's own are read off what the loss and the model were given."""

from __future__ import annotations

import torch
from torch.nn import functional

from touchstone.auditing.observing.calls import squashed
from touchstone.auditing.observing.trace import LossCall
from touchstone.auditing.reading.places import Shift, learned_targets, padded, padding_id, shift_of, targets_of
from touchstone.auditing.subject import IGNORED

LOGITS = torch.randn(4, 7, 11, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randint(11, (4, 7), generator=torch.Generator().manual_seed(1))


def call(given: torch.Tensor, target: torch.Tensor) -> LossCall:
    return LossCall(target, inside=False, shape=tuple(given.shape), given=given)


def test_targets_of_a_slice_stand_at_the_places_of_its_logits() -> None:
    placed = targets_of(LOGITS, call(LOGITS[:, :-1].reshape(-1, 11), TARGETS[:, 1:].reshape(-1)))
    assert placed is not None
    assert torch.equal(placed[:, :-1], TARGETS[:, 1:])
    assert bool((placed[:, -1] == IGNORED).all())


def test_targets_of_transposed_logits_are_transposed_back() -> None:
    placed = targets_of(LOGITS, call(LOGITS.transpose(0, 1).reshape(-1, 11), TARGETS.t().reshape(-1)))
    assert placed is not None
    assert torch.equal(placed, TARGETS)


def test_targets_are_found_behind_a_log_softmax_and_with_classes_second() -> None:
    for given, target in (
        (LOGITS.log_softmax(-1).reshape(-1, 11), TARGETS.reshape(-1)),
        (LOGITS.transpose(1, 2), TARGETS),
    ):
        placed = targets_of(LOGITS, call(given, target))
        assert placed is not None
        assert torch.equal(placed, TARGETS)


def test_other_logits_have_no_targets() -> None:
    assert targets_of(LOGITS, call(LOGITS.reshape(-1, 11) * 2, TARGETS.reshape(-1))) is None


def test_a_loss_by_hand_shows_its_targets_in_the_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    mask = torch.ones(4, 7)
    mask[:, 5:] = 0
    loss = -(logits.log_softmax(-1).gather(2, TARGETS[..., None]).squeeze(2) * mask).sum() / mask.sum()
    loss.backward()
    assert logits.grad is not None
    found = learned_targets(LOGITS, logits.grad)
    assert found is not None
    assert torch.equal(found[:, :5], TARGETS[:, :5])
    assert bool((found[:, 5:] == IGNORED).all())


def test_another_loss_shows_no_targets() -> None:
    logits = LOGITS.clone().requires_grad_()
    functional.mse_loss(logits, torch.zeros_like(logits)).backward()
    assert logits.grad is not None
    assert learned_targets(LOGITS, logits.grad) is None


def test_shifts_are_found_along_either_axis() -> None:
    ids = torch.randint(500, (6, 30), generator=torch.Generator().manual_seed(2))
    assert shift_of(ids[:, :-1], ids[:, 1:]) == Shift(1, 1)
    assert shift_of(ids.t()[:-1], ids.t()[1:]) == Shift(0, 1)
    assert shift_of(ids[:, :-2], ids[:, 2:]) == Shift(1, 2)
    assert shift_of(ids[:, 1:], ids[:, :-1]) == Shift(1, -1)
    assert shift_of(ids, torch.randint(500, (6, 30))) is None


def test_padding_is_an_id_that_only_ends_rows_of_different_lengths() -> None:
    lengths = (9, 5, 3, 7, 2)
    ids = torch.randint(1, 50, (5, 9), generator=torch.Generator().manual_seed(3))
    for row, length in enumerate(lengths):
        ids[row, length:] = 0
    assert padding_id([ids]) == (0, 1)
    assert int(padded(ids, 0, 1).sum()) == sum(max(9 - length - 1, 0) for length in lengths)
    ids[0, 2] = 0
    assert padding_id([ids]) is None


def test_rows_of_one_length_have_no_padding() -> None:
    assert padding_id([torch.randint(1, 50, (5, 9), generator=torch.Generator().manual_seed(3))]) is None


def test_what_squashed_logits_is_seen_through_views() -> None:
    logits = LOGITS.clone().requires_grad_()
    assert squashed(logits.softmax(-1)[:, 1:].reshape(-1, 11)) == "softmax"
    assert squashed(logits.log_softmax(-1).transpose(1, 2)) == "log-softmax"
    assert squashed(torch.sigmoid(logits).squeeze()) == "sigmoid"
    assert squashed((logits.softmax(-1) * 2).view(-1, 11)) == ""
    assert squashed(logits * 2) == ""
