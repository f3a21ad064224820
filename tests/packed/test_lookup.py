"""`Lookup` against `nn.Embedding`: the same rows, and the same gradient once its parts are summed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from touchstone.packed import modules
from touchstone.packed.modules import Lookup, is_large_table

IDS = torch.tensor([[3, 0, 3, 1], [3, 6, 0, 0]])


def gradient(lookup: Lookup) -> torch.Tensor:
    """Sum the collected gradients to (V, H), as `Weights.collect` does."""
    total = torch.zeros(lookup.num_embeddings, lookup.embedding_dim)
    for ids, rows in lookup.gradients:
        total.index_add_(0, ids, rows.float())
    return total


@pytest.mark.parametrize("padding", [None, 0, -1])
def test_lookup_has_the_values_and_gradients_of_an_embedding(padding: int | None) -> None:
    torch.manual_seed(0)
    table = nn.Embedding(7, 4, padding_idx=padding)
    lookup = Lookup(table)
    weights = torch.randn(2, 4, 4)
    expected, got = table(IDS), lookup(IDS)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), table.weight)
    (got * weights).sum().backward()

    assert torch.equal(expected, got)
    # Up to four rows of the same token are summed, perhaps in another order.
    torch.testing.assert_close(gradient(lookup), wanted, rtol=1e-6, atol=1e-6)
    assert lookup.weight.grad is None, "there is a dense gradient"


def test_lookup_collects_the_gradients_of_every_use() -> None:
    lookup = Lookup(nn.Embedding(7, 4))
    for _ in range(2):
        (lookup(IDS).sum() + lookup(IDS[:1]).sum()).backward()

    # Each pass looks up both rows once, and the first one again.
    expected = 2 * (torch.bincount(IDS.flatten(), minlength=7) + torch.bincount(IDS[0], minlength=7))
    assert gradient(lookup)[:, 0].tolist() == expected.tolist()


def test_lookup_returns_its_dtype_and_leaves_the_table_in_float32() -> None:
    lookup = Lookup(nn.Embedding(7, 4))
    lookup.dtype = torch.bfloat16
    found = lookup(IDS)

    assert found.dtype == torch.bfloat16
    assert torch.equal(lookup.weight[IDS].bfloat16(), found)
    assert lookup.weight.dtype == torch.float32


def test_lookup_collects_nothing_without_a_gradient() -> None:
    lookup = Lookup(nn.Embedding(7, 4))
    with torch.no_grad():
        lookup(IDS)
    with torch.inference_mode():
        lookup(IDS)

    assert lookup.gradients == []


def test_lookup_has_the_state_of_the_embedding() -> None:
    table = nn.Embedding(7, 4)

    assert table.weight is Lookup(table).weight
    assert Lookup(table).state_dict().keys() == table.state_dict().keys()


class Scaled(nn.Embedding):
    """A subclass that may compute something else, like BART's."""


def test_is_large_table_accepts_only_large_trained_plain_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "LARGE_TABLE", 20)
    large, small, frozen, own = nn.Embedding(5, 4), nn.Embedding(19, 1), nn.Embedding(5, 4), Scaled(5, 4)
    frozen.weight.requires_grad_(False)

    assert [is_large_table(module) for module in (large, small, frozen, own, nn.Linear(5, 4))] == [
        True,
        False,
        False,
        False,
        False,
    ]
