"""Rows of a batch one after the other: nothing lost, everything in its order, filled up where asked."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from touchstone.packed.layout import Layout, active, laid_out, rounded

no_deadline = settings(deadline=None)  # a busy machine is no failure

lengths = st.lists(st.integers(0, 9), min_size=1, max_size=6)


def mask_of(lengths: list[int], *, side: str = "right", spare: int = 0) -> torch.Tensor:
    """(B, T) ones where real; `spare` columns of padding beyond the longest row."""
    width = max(lengths, default=0) + spare
    rows = [[1] * n + [0] * (width - n) for n in lengths]
    return torch.tensor([row if side == "right" else row[::-1] for row in rows]).view(len(lengths), width)


# Rows -----------------------------------------------------------------------------------------------------------------


@no_deadline
@given(lengths, st.sampled_from(["left", "right"]), st.integers(0, 3))
def test_segments_say_where_every_token_was_and_is(lengths: list[int], side: str, spare: int) -> None:
    mask = mask_of(lengths, side=side, spare=spare)
    segments = Layout.of(mask).source
    real = [(row, column) for row in range(len(lengths)) for column in range(mask.shape[1]) if mask[row, column]]

    assert [0, *np.cumsum(lengths).tolist()] == segments.offsets.tolist()
    assert segments.positions.tolist() == [place for n in lengths for place in range(n)]
    assert segments.real.tolist() == [row * mask.shape[1] + column for row, column in real]
    assert list(range(len(real))) == segments.rank[segments.real].tolist()
    assert (spare > 0 and len(lengths) > 0) or len(set(lengths)) > 1 or not segments.padded
    bounds, longest = segments.bounds
    assert (segments.offsets.tolist(), max(lengths), torch.int32) == (bounds.tolist(), longest, bounds.dtype)


@no_deadline
@given(lengths, st.sampled_from(["left", "right"]))
def test_packing_keeps_real_places_in_order(lengths: list[int], side: str) -> None:
    mask = mask_of(lengths, side=side, spare=1)
    ids = torch.arange(mask.numel()).view(mask.shape)

    assert ids[mask.bool()].tolist() == Layout.of(mask).source.pack(ids)[0].tolist()


def test_rows_without_padding_are_packed_without_a_copy() -> None:
    ids = torch.arange(6).view(2, 3)

    assert ids.data_ptr() == Layout.of(torch.ones(2, 3)).source.pack(ids).data_ptr()


# Filled up ------------------------------------------------------------------------------------------------------------


def to_tens(tokens: int) -> int:
    return -(-tokens // 10) * 10


@no_deadline
@given(lengths, st.sampled_from(["left", "right"]), st.integers(1, 3))
def test_filled_rows_are_the_same_rows_and_one_more(lengths: list[int], side: str, spare: int) -> None:
    mask = mask_of(lengths, side=side, spare=spare)
    n, ids = sum(lengths), torch.arange(mask.numel()).view(mask.shape)
    plain, filled = Layout.of(mask).source, Layout.of(mask, size=to_tens).source
    hidden = torch.arange(1.0, filled.tokens + 1)

    assert (n, to_tens(n)) == (plain.tokens, filled.tokens)
    rows = [*plain.lengths.tolist()] if n % 10 == 0 else [*plain.lengths.tolist(), to_tens(n) - n]
    assert filled.lengths.tolist() == rows
    assert [*plain.positions.tolist(), *[0] * (to_tens(n) - n)] == filled.positions.tolist()
    assert plain.real.tolist() == filled.real.tolist()
    assert plain.rank.tolist() == filled.rank.tolist()
    assert filled.pack(ids).shape[1] == to_tens(n)
    assert plain.pack(ids)[0].tolist() == filled.pack(ids)[0, :n].tolist()
    assert plain.pad(hidden[:n]).tolist() == filled.pad(hidden).tolist()


def test_rows_of_one_length_are_not_filled_up() -> None:
    assert Layout.of(torch.ones(2, 3), size=to_tens).source.lengths.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ([3, 3], [1, 2], ([3, 3, 0], [1, 2, 7])),
        ([4, 3], [5, 5], ([4, 3, 3], [5, 5, 0])),
        ([4, 6], [1, 2], ([4, 6, 0], [1, 2, 7])),
        ([4, 6], [8, 2], ([4, 6], [8, 2])),
        ([4, 3], [1, 2], ([4, 3, 3], [1, 2, 7])),
    ],
    ids=str,
)
def test_a_source_and_its_target_have_as_many_rows(
    source: list[int], target: list[int], expected: tuple[list[int], list[int]]
) -> None:
    layout = Layout.of(mask_of(source), decoder_mask=mask_of(target), size=to_tens)

    assert layout.target is not None
    assert (layout.source.lengths.tolist(), layout.target.lengths.tolist()) == expected


def test_there_are_few_sizes_and_little_is_wasted() -> None:
    sizes = [rounded(tokens) for tokens in range(1, 16_385)]

    assert all(0 <= size - tokens < max(32, min(tokens / 8, 128)) for tokens, size in enumerate(sizes, start=1))
    assert sorted(sizes) == sizes
    assert all(size == rounded(size) for size in sizes)
    assert len(set(sizes)) < 150


# The layout on its way ------------------------------------------------------------------------------------------------


def test_a_layout_is_active_within_and_gone_after_an_error() -> None:
    layout = Layout.of(mask_of([1, 2]))
    found = []
    with contextlib.suppress(RuntimeError), laid_out(layout):
        found.append(active())
        raise RuntimeError("lost")

    assert [*found, active()] == [layout, None]
