"""Dropout by raw bits: the right rate and expected value, and one mask for both passes."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from touchstone.packed.modules import LEVELS, MaskSource, apply_mask, fast_dropout, kept_scale

CPU = torch.device("cpu")
no_deadline = settings(deadline=None)  # a busy machine is not a failure
N = 2**20
# The kept share of N independent draws is further than t from its mean with probability below 2 exp(-2 N t^2)
# (Hoeffding). Here t makes that one in a billion. Seeds are fixed, so a test that passes once always passes.
SPREAD = math.sqrt(math.log(2 / 1e-9) / (2 * N))

every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
every_rate = pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 1 / 3])


def source(*key: int) -> MaskSource:
    masks = MaskSource()
    masks.seed(*key)
    return masks


def kept(mask: torch.Tensor) -> torch.Tensor:
    return mask != 0


@every_dtype
@every_rate
def test_mask_source_drops_at_the_rate(rate: float, dtype: torch.dtype) -> None:
    mask = source(1).draw(torch.Size([N]), rate=rate, dtype=dtype, device=CPU)

    assert float(kept(mask).double().mean()) == pytest.approx(1 - rate, abs=SPREAD + 0.5 / LEVELS)
    assert set(mask.unique().tolist()) == {-1, 0}, "each element of a mask has all bits set or none"
    assert mask.dtype.itemsize == dtype.itemsize


@every_rate
def test_kept_scale_keeps_the_expected_value_exactly(rate: float) -> None:
    # 15 bits have 2^15 values, of which exactly `round(rate * 2^15)` are dropped.
    remaining = (LEVELS - round(rate * LEVELS)) / LEVELS

    assert kept_scale(rate) * remaining == pytest.approx(1.0, rel=1e-15)


def test_the_four_draws_from_one_raw_number_are_alike_and_independent() -> None:
    mask = kept(source(2).draw(torch.Size([N, 4]), rate=0.25, dtype=torch.float32, device=CPU)).double()

    np.testing.assert_allclose(mask.mean(0), [0.75] * 4, atol=SPREAD)
    # If they are independent, the mean of their products is the product of their means.
    np.testing.assert_allclose((mask.T @ mask / N).fill_diagonal_(0.75**2), np.full((4, 4), 0.75**2), atol=SPREAD)


@no_deadline
@given(st.integers(0, 9), st.sampled_from([torch.float32, torch.bfloat16]))
def test_masks_of_any_size_depend_only_on_the_key(n: int, dtype: torch.dtype) -> None:
    first, second = (source(3, n).draw(torch.Size([n, 3]), rate=0.5, dtype=dtype, device=CPU) for _ in range(2))

    assert tuple(first.shape) == (n, 3)
    assert torch.equal(first, second)


def test_mask_source_gives_other_masks_for_other_keys_and_does_not_repeat() -> None:
    shape = torch.Size([64])  # two masks are equal by chance once in 2^64
    keys = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    masks = [source(*key).draw(shape, rate=0.5, dtype=torch.float32, device=CPU) for key in keys]
    one = source(0, 0)
    masks += [one.draw(shape, rate=0.5, dtype=torch.float32, device=CPU) for _ in range(3)][1:]

    assert len(masks) == len({tuple(mask.tolist()) for mask in masks})


def test_masks_of_both_precisions_drop_the_same_elements() -> None:
    wide, narrow = (
        kept(source(4).draw(torch.Size([1001]), rate=0.3, dtype=dtype, device=CPU))
        for dtype in (torch.float32, torch.bfloat16)
    )

    assert torch.equal(wide, narrow)


@every_dtype
def test_apply_mask_keeps_bits_unchanged_and_zeroes_even_infinities(dtype: torch.dtype) -> None:
    values = torch.tensor([1.5, -2.0, math.inf, -math.inf, math.nan, -0.0], dtype=dtype)
    mask = torch.tensor([-1, 0, 0, -1, 0, -1], dtype=torch.int32 if dtype == torch.float32 else torch.int16)
    got = apply_mask(values, mask)

    assert got.tolist() == [1.5, 0.0, 0.0, -math.inf, 0.0, -0.0]
    assert got.dtype == dtype


# fast_dropout ---------------------------------------------------------------------------------------------------------


def dropped(values: torch.Tensor, *, rate: float, seed: int) -> torch.Tensor:
    with fast_dropout(source(seed)):
        return nn.functional.dropout(values, p=rate, training=True)


@every_dtype
def test_fast_dropout_has_the_same_mask_for_the_gradient(dtype: torch.dtype) -> None:
    values = torch.full((40, 50), 2.0, dtype=dtype, requires_grad=True)
    output = dropped(values, rate=0.25, seed=5)
    output.backward(torch.ones_like(output))
    assert values.grad is not None

    assert 0 < int((output == 0).sum()) < output.numel()
    scale = torch.tensor(kept_scale(0.25), dtype=dtype)
    assert torch.equal(torch.where(output == 0, torch.zeros_like(scale), scale), values.grad)
    assert torch.equal(output, 2 * values.grad)


def test_fast_dropout_handles_non_contiguous_values_and_gradients() -> None:
    values = torch.arange(1.0, 13).view(3, 4).t().requires_grad_()
    output = dropped(values, rate=0.5, seed=6)
    output.backward(torch.ones(3, 4).t())
    assert values.grad is not None

    assert torch.equal(output, values * values.grad)


@pytest.mark.parametrize("layer", [nn.Dropout(0.0), nn.Dropout(0.7).eval()])
def test_fast_dropout_at_rate_zero_or_in_evaluation_changes_nothing(layer: nn.Module) -> None:
    values = torch.randn(3)
    with fast_dropout(MaskSource()):
        assert layer(values) is values


def test_fast_dropout_at_rate_one_drops_everything() -> None:
    assert torch.equal(torch.zeros(1000), dropped(torch.ones(1000), rate=1.0, seed=7))


def test_fast_dropout_draws_from_its_source_and_not_from_torchs_generator() -> None:
    values, before = torch.ones(64), torch.get_rng_state()
    with fast_dropout(source(8)):
        found = [nn.Dropout(0.5)(values), nn.functional.dropout(values, 0.5)]
    masks = source(8)
    expected = [masks.draw(values.shape, rate=0.5, dtype=values.dtype, device=CPU) for _ in found]

    assert [(output != 0).tolist() for output in found] == [kept(mask).tolist() for mask in expected]
    assert torch.equal(before, torch.get_rng_state())


def test_fast_dropout_leaves_other_types_and_in_place_calls_to_torch() -> None:
    values = torch.ones(64)
    with fast_dropout(source(9)):
        assert set(nn.functional.dropout(values.double(), 0.5).tolist()) == {0.0, 2.0}
        assert nn.functional.dropout(values, 0.5, inplace=True) is values
        with pytest.raises(ValueError, match="between 0 and 1"):
            nn.functional.dropout(values, 1.5)
    assert set(values.tolist()) == {0.0, 2.0}


def test_fast_dropout_restores_torchs_function_after_an_error() -> None:
    before = nn.functional.dropout
    with contextlib.suppress(RuntimeError), fast_dropout(MaskSource()):
        assert nn.functional.dropout is not before
        raise RuntimeError("lost")

    assert nn.functional.dropout is before
