"""Packed attention against its definition, row by row: values, gradients, and that rows do not see each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from touchstone.packed import attention
from touchstone.packed.attention import packed_attention
from touchstone.packed.layout import Layout, use_layout
from touchstone.packed.modules import DROPOUT_MASKS, kept_scale

HEADS, WIDTH = 2, 4
SCALE = 0.4
# Float32 sums of at most a hundred products of numbers around one, compared with float64.
ROUNDING = 2e-5

EVEN = [6, 6, 6]
RAGGED = [3, 120, 1, 9, 110]  # at least two groups
EMPTY = [0, 4, 0, 130, 0]
ONES = [1, 1, 1]


def layout_of(source: Sequence[int], target: Sequence[int] | None = None) -> Layout:
    def mask(lengths: Sequence[int]) -> torch.Tensor:
        return (torch.arange(max(*lengths, 1)) < torch.tensor(lengths)[:, None]).long()

    return Layout.of(mask(source), decoder_mask=None if target is None else mask(target))


def tokens(n: int, *, seed: int, heads: int = HEADS, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    # The memory layout of models, which make heads by a transposition.
    return torch.randn(1, n, heads, WIDTH, generator=generator).to(dtype).transpose(1, 2).requires_grad_()


def packed(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: Layout,
    *,
    causal: bool = False,
    decodes: bool = False,
    **how: Any,
) -> torch.Tensor:
    """Compute packed attention, (T, heads, d)."""
    module: Any = SimpleNamespace(is_causal=causal, is_decoder=decodes)
    with use_layout(layout):
        return packed_attention(module, q, k, v, None, scaling=SCALE, **how)[0][0]


def plain(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    queries: Sequence[int],
    keys: Sequence[int],
    *,
    causal: bool = False,
    position_bias: torch.Tensor | None = None,
    sliding_window: int | None = None,
) -> torch.Tensor:
    """Compute attention by its definition, one row and one query at a time: (T, heads, d) float64."""
    outputs, q_start, k_start = [], 0, 0
    q, k, v = (x[0].double() for x in (q, k, v))
    share = q.shape[0] // k.shape[0]
    k, v = (x.repeat_interleave(share, 0) for x in (k, v))
    for n, m in zip(queries, keys, strict=True):
        row_q, row_k, row_v = q[:, q_start : q_start + n], k[:, k_start : k_start + m], v[:, k_start : k_start + m]
        for i in range(n):
            seen = [
                j
                for j in range(m)
                if not (causal and j > i) and not (sliding_window is not None and abs(i - j) >= sliding_window)
            ]
            scores = SCALE * torch.einsum("hd,hjd->hj", row_q[:, i], row_k[:, seen])
            if position_bias is not None:
                scores = scores + position_bias[0].double()[:, i, seen]
            outputs.append(torch.einsum("hj,hjd->hd", torch.softmax(scores, -1), row_v[:, seen]))
        q_start, k_start = q_start + n, k_start + m
    return torch.stack(outputs) if outputs else q.new_zeros(0, q.shape[0], WIDTH)


def assert_same(
    expected: torch.Tensor, got: torch.Tensor, inputs: Sequence[torch.Tensor], *, within: float = ROUNDING
) -> None:
    """Compare the outputs, and the gradients of their sum with random weights."""
    torch.testing.assert_close(got.double(), expected, atol=within, rtol=within)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)
    found = torch.autograd.grad((got.double() * weights).sum(), inputs)
    for one, other in zip(wanted, found, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(other.double(), one.double(), atol=4 * within, rtol=within)


lengths = pytest.mark.parametrize("lengths", [EVEN, RAGGED, EMPTY, ONES, [5]], ids=str)


# The definition -------------------------------------------------------------------------------------------------------


@lengths
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 3])
def test_packed_attention_of_a_row_is_attention_to_itself(lengths: list[int], causal: bool, window: int | None) -> None:
    q, k, v = inputs = [tokens(sum(lengths), seed=seed) for seed in range(3)]
    how: dict[str, Any] = {"causal": causal, "sliding_window": window}

    assert_same(plain(q, k, v, lengths, lengths, **how), packed(q, k, v, layout_of(lengths), **how), inputs)


@given(
    st.lists(st.one_of(st.integers(0, 6), st.just(105)), min_size=1, max_size=5).filter(any),
    st.booleans(),
    st.integers(1, 4),
)
@settings(max_examples=20, deadline=None)  # the definition is slow
def test_packed_attention_is_right_for_rows_of_any_lengths(lengths: list[int], causal: bool, window: int) -> None:
    q, k, v = inputs = [tokens(sum(lengths), seed=seed) for seed in range(3)]
    how: dict[str, Any] = {"causal": causal, "sliding_window": window}

    assert_same(plain(q, k, v, lengths, lengths, **how), packed(q, k, v, layout_of(lengths), **how), inputs)


def test_a_window_narrower_than_the_padding_of_a_group_gives_no_nan() -> None:
    """A padded query of a short row has no key in its window. Its output was NaN once."""
    lengths = [2, 20]
    q, k, v = inputs = [tokens(22, seed=seed) for seed in range(3)]
    layout = layout_of(lengths)
    (group,) = layout.grouping(layout.source, layout.source, heads=HEADS).groups
    got = packed(q, k, v, layout, sliding_window=3)

    assert group.queries == 24
    assert_same(plain(q, k, v, lengths, lengths, sliding_window=3), got, inputs)


@pytest.mark.parametrize(
    ("source", "target"),
    [(EVEN, EVEN), (EVEN, [2, 2, 2]), (RAGGED, [7, 1, 115, 2, 3]), ([4, 0, 3], [2, 0, 6]), (EVEN, [0, 3, 0])],
    ids=str,
)
def test_cross_attention_of_a_target_is_to_its_own_source(source: list[int], target: list[int]) -> None:
    q = tokens(sum(target), seed=0)
    k, v = (tokens(sum(source), seed=seed) for seed in (1, 2))
    got = packed(q, k, v, layout_of(source, target), decodes=True)

    assert_same(plain(q, k, v, target, source), got, [q, k, v])


@pytest.mark.parametrize("target", [RAGGED, EVEN], ids=str)
def test_self_attention_is_over_the_target_in_a_decoder_and_the_source_in_an_encoder(target: list[int]) -> None:
    layout = layout_of([2] * len(target), target)
    inputs = [tokens(sum(target), seed=seed) for seed in range(3)]
    got = packed(*inputs, layout, causal=True, decodes=True)  # type: ignore[misc]
    assert_same(plain(*inputs, target, target, causal=True), got, inputs)  # type: ignore[misc]

    inputs = [tokens(2 * len(target), seed=seed) for seed in range(3)]
    got = packed(*inputs, layout)  # type: ignore[misc]
    assert_same(plain(*inputs, [2] * len(target), [2] * len(target)), got, inputs)  # type: ignore[misc]


@pytest.mark.parametrize("lengths", [EVEN, RAGGED, EMPTY], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_a_position_bias_applies_to_each_row_and_gets_gradients_from_all(lengths: list[int], causal: bool) -> None:
    q, k, v = inputs = [tokens(sum(lengths), seed=seed) for seed in range(3)]
    longest = max(lengths)
    bias = torch.randn(1, HEADS, longest, longest, generator=torch.Generator().manual_seed(4)).requires_grad_()
    got = packed(q, k, v, layout_of(lengths), causal=causal, position_bias=bias)

    expected = plain(q, k, v, lengths, lengths, causal=causal, position_bias=bias)
    assert_same(expected, got, [*inputs, bias])


@pytest.mark.parametrize("lengths", [EVEN, RAGGED], ids=str)
def test_key_heads_are_shared_by_several_query_heads(lengths: list[int]) -> None:
    q, k, v = (tokens(sum(lengths), seed=seed, heads=heads) for seed, heads in enumerate((4, 2, 2)))
    got = packed(q, k, v, layout_of(lengths), causal=True)

    assert_same(plain(q, k, v, lengths, lengths, causal=True), got, [q, k, v])


@pytest.mark.parametrize("lengths", [EVEN, RAGGED], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_bf16_attention_is_exact_up_to_rounding(lengths: list[int], causal: bool) -> None:
    q, k, v = inputs = [tokens(sum(lengths), seed=seed, dtype=torch.bfloat16) for seed in range(3)]
    got = packed(q, k, v, layout_of(lengths), causal=causal)

    assert got.dtype == torch.bfloat16
    # A rounding error is 2^-9 of a number: 0.012 of the scores (at most 6 here), so 1.2% and 0.2% of a weight, and 0.06
    # of an output, which is a mean of values of at most 4. Gradients have the same roundings; `assert_same` allows them
    # four times as much.
    assert_same(plain(q, k, v, lengths, lengths, causal=causal), got, inputs, within=0.06)


def test_the_default_scale_is_one_over_the_root_of_the_width() -> None:
    q, k, v = (tokens(6, seed=seed) for seed in range(3))
    module: Any = SimpleNamespace(is_causal=False)
    with use_layout(layout_of([2, 4])):
        got = packed_attention(module, q * SCALE * math.sqrt(WIDTH), k, v, None)[0][0]

    torch.testing.assert_close(got.double(), plain(q, k, v, [2, 4], [2, 4]), atol=ROUNDING, rtol=ROUNDING)


# Rows apart -----------------------------------------------------------------------------------------------------------


def rows(x: torch.Tensor, lengths: Sequence[int]) -> tuple[torch.Tensor, ...]:
    return x.split(list(lengths))


@pytest.mark.parametrize("lengths", [[5, 5, 5], [5, 3, 100, 0, 4, 104]], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_changing_one_row_changes_no_bit_of_another(
    lengths: list[int], dropout: float, causal: bool, dtype: torch.dtype
) -> None:
    for changed in range(len(lengths)):
        found = []
        for change in (1.0, 1e3):
            inputs = [tokens(sum(lengths), seed=seed, dtype=dtype) for seed in range(3)]
            with torch.no_grad():
                for x in inputs:
                    x[:, :, sum(lengths[:changed]) : sum(lengths[: changed + 1])] *= change
            DROPOUT_MASKS.seed(1)
            output = packed(*inputs, layout_of(lengths), causal=causal, dropout=dropout)  # type: ignore[misc]
            gradients = torch.autograd.grad(output.sum(), inputs)
            found.append([rows(output, lengths), *(rows(g[0].transpose(0, 1), lengths) for g in gradients)])
        for row in range(len(lengths)):
            same = all(torch.equal(before[row], after[row]) for before, after in zip(*found, strict=True))
            assert (row != changed or lengths[row] == 0) == same, f"row {changed} was changed: row {row}"


@pytest.mark.parametrize("source", [[3, 0, 4], [3, 4, 0], [0, 0, 0]], ids=str)
def test_a_target_with_an_empty_source_outputs_zero(source: list[int]) -> None:
    target = [2, 3, 4]
    q = tokens(9, seed=0)
    k, v = (tokens(sum(source), seed=seed) for seed in (1, 2))
    got = packed(q, k, v, layout_of(source, target), decodes=True)
    gradient = torch.autograd.grad(got.sum(), q, retain_graph=True)[0][0].transpose(0, 1)

    for row, output in enumerate(rows(got, target)):
        assert bool(output.eq(0).all()) == (source[row] == 0)
        assert source[row] != 0 or rows(gradient, target)[row].eq(0).all()
    assert_same(plain(q, k, v, target, source), got, [q, k, v])


# Without a gradient ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [EVEN, RAGGED, EMPTY, ONES, [5], [7, 7, 4, 4, 4, 2]], ids=str)
@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (False, 3), (True, 2)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_without_a_gradient_is_right(
    lengths: list[int], causal: bool, window: int | None, biased: bool, dtype: torch.dtype
) -> None:
    inputs = [tokens(sum(lengths), seed=seed, dtype=dtype) for seed in range(3)]
    how: dict[str, Any] = {"causal": causal, "sliding_window": window}
    if biased:
        longest = max(lengths)
        how["position_bias"] = torch.randn(1, HEADS, longest, longest, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        got = packed(*inputs, layout_of(lengths), **how)  # type: ignore[misc]

    expected = plain(*inputs, lengths, lengths, **how)  # type: ignore[misc]
    torch.testing.assert_close(got.double(), expected, atol=ROUNDING, rtol=ROUNDING)


@pytest.mark.parametrize(
    ("source", "target"),
    [(EVEN, [2, 2, 2]), (RAGGED, [7, 1, 115, 2, 3]), ([4, 0, 3], [2, 0, 6]), ([3, 0, 4], [2, 3, 4]), ([0, 0], [2, 3])],
    ids=str,
)
def test_cross_attention_without_a_gradient_is_to_its_own_source(source: list[int], target: list[int]) -> None:
    q = tokens(sum(target), seed=0)
    k, v = (tokens(sum(source), seed=seed) for seed in (1, 2))
    with torch.inference_mode():
        got = packed(q, k, v, layout_of(source, target), decodes=True)

    torch.testing.assert_close(got.double(), plain(q, k, v, target, source), atol=ROUNDING, rtol=ROUNDING)


@pytest.mark.parametrize("lengths", [EVEN, [5, 3, 100, 0, 4, 104]], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_bf16_attention_is_the_same_without_a_gradient(lengths: list[int], causal: bool, biased: bool) -> None:
    inputs = [tokens(sum(lengths), seed=seed, dtype=torch.bfloat16) for seed in range(3)]
    how: dict[str, Any] = {"causal": causal}
    if biased:
        how["position_bias"] = torch.randn(1, HEADS, *[max(lengths)] * 2, generator=torch.Generator().manual_seed(4))
    expected = packed(*inputs, layout_of(lengths), **how)  # type: ignore[misc]
    with torch.inference_mode():
        got = packed(*inputs, layout_of(lengths), **how)  # type: ignore[misc]

    assert got.dtype == torch.bfloat16
    # The same roundings; a sum in another order may be rounded the other way.
    torch.testing.assert_close(got, expected, atol=2 * 2**-8, rtol=2**-8)


def test_attention_without_a_gradient_saves_nothing_for_a_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("called the autograd function of training")

    monkeypatch.setattr(attention._AttendTrain, "forward", refuse)
    inputs = [tokens(sum(RAGGED), seed=seed) for seed in range(3)]
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            packed(*inputs, layout_of(RAGGED))  # type: ignore[misc]
    with pytest.raises(AssertionError, match="autograd function"):
        packed(*inputs, layout_of(RAGGED))  # type: ignore[misc]


# Dropout --------------------------------------------------------------------------------------------------------------


def test_attention_dropout_at_rate_zero_draws_no_mask() -> None:
    q, k, v = (tokens(sum(RAGGED), seed=seed) for seed in range(3))
    DROPOUT_MASKS.seed(1)
    outputs = [packed(q, k, v, layout_of(RAGGED)), packed(q, k, v, layout_of(RAGGED), dropout=0.0)]
    after = DROPOUT_MASKS.draw(torch.Size([64]), rate=0.5, dtype=torch.float32, device=q.device)
    DROPOUT_MASKS.seed(1)

    assert torch.equal(*outputs)
    assert torch.equal(DROPOUT_MASKS.draw(torch.Size([64]), rate=0.5, dtype=torch.float32, device=q.device), after)


def weights_of(lengths: Sequence[int], *, rate: float, dtype: torch.dtype, seed: int = 1) -> list[torch.Tensor]:
    """Return (heads, L, L) the attention weights of each row after dropout, for rows of at most `WIDTH` tokens.

    The queries are zero, so all weights of a row are equal. The values are one-hot, so the outputs are the weights.
    """
    n = sum(lengths)
    q = torch.zeros(1, HEADS, n, WIDTH, dtype=dtype)
    v = torch.zeros(1, HEADS, n, WIDTH, dtype=dtype)
    start = 0
    for length in lengths:
        v[0, :, torch.arange(start, start + length), torch.arange(length)] = 1.0
        start += length
    DROPOUT_MASKS.seed(seed)
    output = packed(q, q, v, layout_of(lengths), dropout=rate)
    return [row.transpose(0, 1)[:, :, : row.shape[0]] for row in rows(output, lengths)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("lengths", [[4] * 2000, [4, 3] * 1500], ids=["even", "ragged"])
def test_attention_weights_are_dropped_at_the_rate_and_the_others_scaled(
    lengths: list[int], rate: float, dtype: torch.dtype
) -> None:
    weights = weights_of(lengths, rate=rate, dtype=dtype)
    flat = torch.cat([(row * len(row[0])).flatten() for row in weights]).double()  # times L: 1 without dropout
    n = len(flat)
    # By Hoeffding's inequality one seed in a billion is further off than this; the seed here is fixed.
    spread = math.sqrt(math.log(2 / 1e-9) / (2 * n))
    digits = 1e-6 if dtype == torch.float32 else 3 * 2**-9  # roundings: a third, its product with the scale, the output

    assert float((flat > 0).double().mean()) == pytest.approx(1 - rate, abs=spread + 2**-16)
    assert float(flat.mean()) == pytest.approx(1.0, abs=kept_scale(rate) * spread + digits)
    kept = flat[flat > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, kept_scale(rate)), rtol=digits, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [[4, 4, 4], [4, 2, 3]], ids=str)
def test_the_gradient_of_values_has_the_mask_of_the_forward_pass(lengths: list[int], dtype: torch.dtype) -> None:
    n = sum(lengths)
    weights = torch.block_diag(*(row[0] for row in weights_of(lengths, rate=0.5, dtype=dtype))).double()
    q = torch.zeros(1, HEADS, n, WIDTH, dtype=dtype)
    v = torch.zeros(1, HEADS, n, WIDTH, dtype=dtype, requires_grad=True)
    DROPOUT_MASKS.seed(1)
    output = packed(q, q, v, layout_of(lengths), dropout=0.5)
    d_output = torch.randn(n, HEADS, WIDTH, generator=torch.Generator().manual_seed(2)).to(dtype)
    (gradient,) = torch.autograd.grad(output, v, d_output)

    # In bf16 the weights and the sum of at most four of them are rounded.
    within = 1e-6 if dtype == torch.float32 else 6 * 2**-9
    torch.testing.assert_close(
        gradient[0, 0].double(), weights.T @ d_output[:, 0].double(), atol=4 * within, rtol=within
    )


@pytest.mark.parametrize("lengths", [EVEN, [3, 12, 1]], ids=str)
def test_gradients_with_dropout_match_finite_differences(lengths: list[int]) -> None:
    """Central differences along a random direction, with the mask fixed. The loss is smooth, so their error is of third
    order; float32 resolves a difference of 2e-2 to 1e-4 of it."""
    inputs = [tokens(sum(lengths), seed=seed) for seed in range(3)]
    directions = [torch.randn(x.shape, generator=torch.Generator().manual_seed(5)) for x in inputs]

    def loss(step: float) -> torch.Tensor:
        DROPOUT_MASKS.seed(3)
        moved = [x + step * d for x, d in zip(inputs, directions, strict=True)]
        output = packed(*moved, layout_of(lengths), causal=True, dropout=0.4)  # type: ignore[misc]
        return output.double().pow(2).sum()

    gradients = torch.autograd.grad(loss(0.0), inputs)
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))

    assert slope == pytest.approx(float(loss(5e-3).detach() - loss(-5e-3).detach()) / 1e-2, rel=2e-3)


def test_packed_attention_without_a_layout_is_plain_sdpa() -> None:
    q, k, v = (tokens(5, seed=seed) for seed in range(3))
    mask = torch.ones(1, 1, 5, 5).tril().bool()
    module: Any = SimpleNamespace(is_causal=True)
    got = packed_attention(module, q, k, v, mask, scaling=SCALE)[0][0]

    torch.testing.assert_close(got.double(), plain(q, k, v, [5], [5], causal=True), atol=ROUNDING, rtol=ROUNDING)
