"""Looking up without a gradient as large as the table: the same rows, and the same gradient once it is added up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from touchstone.packed import lookup as lookup_module
from touchstone.packed.lookup import Lookup, is_large_table

IDS = torch.tensor([[3, 0, 3, 1], [3, 6, 0, 0]])


def gradient(lookup: Lookup) -> torch.Tensor:
    """(V, H) what `Weights.collect` makes of what was noted."""
    total = torch.zeros(lookup.num_embeddings, lookup.embedding_dim)
    for ids, rows in lookup.found:
        total.index_add_(0, ids, rows.float())
    return total


@pytest.mark.parametrize("padding", [None, 0, -1])
def test_values_and_gradients_are_those_of_an_embedding(padding: int | None) -> None:
    torch.manual_seed(0)
    table = nn.Embedding(7, 4, padding_idx=padding)
    lookup = Lookup(table)
    weights = torch.randn(2, 4, 4)
    expected, got = table(IDS), lookup(IDS)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), table.weight)
    (got * weights).sum().backward()

    assert torch.equal(expected, got)
    # Up to four rows of the same token are added up, perhaps in another order.
    torch.testing.assert_close(gradient(lookup), wanted, rtol=1e-6, atol=1e-6)
    assert lookup.weight.grad is None, "a dense gradient was made after all"


def test_every_use_since_the_last_time_is_noted() -> None:
    lookup = Lookup(nn.Embedding(7, 4))
    for _ in range(2):
        (lookup(IDS).sum() + lookup(IDS[:1]).sum()).backward()

    # Each pass: both rows once, and the first once more.
    expected = 2 * (torch.bincount(IDS.flatten(), minlength=7) + torch.bincount(IDS[0], minlength=7))
    assert expected.tolist() == gradient(lookup)[:, 0].tolist()


def test_what_is_looked_up_has_the_asked_precision_and_the_table_keeps_its_own() -> None:
    lookup = Lookup(nn.Embedding(7, 4))
    lookup.dtype = torch.bfloat16
    found = lookup(IDS)

    assert found.dtype == torch.bfloat16
    assert torch.equal(lookup.weight[IDS].bfloat16(), found)
    assert lookup.weight.dtype == torch.float32


def test_evaluation_notes_nothing() -> None:
    lookup = Lookup(nn.Embedding(7, 4))
    with torch.no_grad():
        lookup(IDS)
    with torch.inference_mode():
        lookup(IDS)

    assert lookup.found == []


def test_its_state_is_the_embeddings() -> None:
    table = nn.Embedding(7, 4)

    assert table.weight is Lookup(table).weight
    assert table.state_dict().keys() == Lookup(table).state_dict().keys()


class Scaled(nn.Embedding):
    """Embeds in a way of its own, as BART does."""


def test_only_plain_large_tables_that_learn_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_module, "LARGE", 20)
    large, small, frozen, own = nn.Embedding(5, 4), nn.Embedding(19, 1), nn.Embedding(5, 4), Scaled(5, 4)
    frozen.weight.requires_grad_(False)

    assert [is_large_table(module) for module in (large, small, frozen, own, nn.Linear(5, 4))] == [
        True,
        False,
        False,
        False,
        False,
    ]
