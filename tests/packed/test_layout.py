"""Packed rows, and the groups and blocks of rows that attention computes together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from touchstone.packed.layout import (
    GROUP_COST,
    LENGTH_MULTIPLE,
    MASKED_SCORE,
    Grouping,
    Layout,
    _partition,
    current_layout,
    group_rows,
    rounded,
    row_blocks,
    use_layout,
)

no_deadline = settings(deadline=None)  # a busy machine is not a failure
HEADS = 2
CPU = torch.device("cpu")

lengths = st.lists(st.integers(0, 9), min_size=1, max_size=6)


def mask_of(lengths: list[int], *, side: str = "right", spare: int = 0) -> torch.Tensor:
    """Return (B, T) ones at real tokens, with `spare` columns of padding beyond the longest row."""
    width = max(lengths, default=0) + spare
    rows = [[1] * n + [0] * (width - n) for n in lengths]
    return torch.tensor([row if side == "right" else row[::-1] for row in rows]).view(len(lengths), width)


# Rows -----------------------------------------------------------------------------------------------------------------


@no_deadline
@given(lengths, st.sampled_from(["left", "right"]), st.integers(0, 3))
def test_segments_map_tokens_between_the_padded_and_the_packed_batch(lengths: list[int], side: str, spare: int) -> None:
    mask = mask_of(lengths, side=side, spare=spare)
    segments = Layout.of(mask).source
    real = [(row, column) for row in range(len(lengths)) for column in range(mask.shape[1]) if mask[row, column]]

    assert segments.offsets.tolist() == [0, *np.cumsum(lengths).tolist()]
    assert segments.positions.tolist() == [place for n in lengths for place in range(n)]
    assert segments.padded_index.tolist() == [row * mask.shape[1] + column for row, column in real]
    assert segments.packed_index[segments.padded_index].tolist() == list(range(len(real)))
    assert (spare > 0 and len(lengths) > 0) or len(set(lengths)) > 1 or not segments.has_padding
    bounds, longest = segments.bounds
    assert (bounds.tolist(), longest, bounds.dtype) == (segments.offsets.tolist(), max(lengths), torch.int32)


@no_deadline
@given(lengths, st.sampled_from(["left", "right"]))
def test_pack_keeps_real_tokens_in_order(lengths: list[int], side: str) -> None:
    mask = mask_of(lengths, side=side, spare=1)
    ids = torch.arange(mask.numel()).view(mask.shape)

    assert Layout.of(mask).source.pack(ids)[0].tolist() == ids[mask.bool()].tolist()


def test_pack_does_not_copy_a_batch_without_padding() -> None:
    ids = torch.arange(6).view(2, 3)

    assert Layout.of(torch.ones(2, 3)).source.pack(ids).data_ptr() == ids.data_ptr()


# The filler row -------------------------------------------------------------------------------------------------------


def to_tens(tokens: int) -> int:
    return -(-tokens // 10) * 10


@no_deadline
@given(lengths, st.sampled_from(["left", "right"]), st.integers(1, 3))
def test_rounding_adds_a_filler_row_and_changes_no_other(lengths: list[int], side: str, spare: int) -> None:
    mask = mask_of(lengths, side=side, spare=spare)
    n, ids = sum(lengths), torch.arange(mask.numel()).view(mask.shape)
    plain, with_filler = Layout.of(mask).source, Layout.of(mask, rounding=to_tens).source
    hidden = torch.arange(1.0, with_filler.tokens + 1)

    assert (plain.tokens, with_filler.tokens) == (n, to_tens(n))
    rows = [*plain.lengths.tolist()] if n % 10 == 0 else [*plain.lengths.tolist(), to_tens(n) - n]
    assert with_filler.lengths.tolist() == rows
    assert with_filler.positions.tolist() == [*plain.positions.tolist(), *[0] * (to_tens(n) - n)]
    assert with_filler.padded_index.tolist() == plain.padded_index.tolist()
    assert with_filler.packed_index.tolist() == plain.packed_index.tolist()
    assert with_filler.pack(ids).shape[1] == to_tens(n)
    assert with_filler.pack(ids)[0, :n].tolist() == plain.pack(ids)[0].tolist()
    assert with_filler.pad(hidden).tolist() == plain.pad(hidden[:n]).tolist()


def test_rows_of_one_length_get_no_filler_row() -> None:
    assert Layout.of(torch.ones(2, 3), rounding=to_tens).source.lengths.tolist() == [3, 3]


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
def test_source_and_target_have_equally_many_rows(
    source: list[int], target: list[int], expected: tuple[list[int], list[int]]
) -> None:
    layout = Layout.of(mask_of(source), decoder_mask=mask_of(target), rounding=to_tens)

    assert layout.target is not None
    assert (layout.source.lengths.tolist(), layout.target.lengths.tolist()) == expected


def test_rounded_has_few_sizes_and_wastes_little() -> None:
    sizes = [rounded(tokens) for tokens in range(1, 16_385)]

    assert all(0 <= size - tokens < max(32, min(tokens / 8, 128)) for tokens, size in enumerate(sizes, start=1))
    assert sorted(sizes) == sizes
    assert all(size == rounded(size) for size in sizes)
    assert len(set(sizes)) < 150


# The current layout ---------------------------------------------------------------------------------------------------


def test_use_layout_resets_the_current_layout_after_an_error() -> None:
    layout = Layout.of(mask_of([1, 2]))
    found = []
    with contextlib.suppress(RuntimeError), use_layout(layout):
        found.append(current_layout())
        raise RuntimeError("lost")

    assert [*found, current_layout()] == [layout, None]


# Groups ---------------------------------------------------------------------------------------------------------------

# A group costs about as much as the arithmetic of a row of 100 tokens, so the best grouping of these is not trivial.
long_lengths = st.lists(st.one_of(st.integers(0, 5), st.integers(60, 160)), min_size=1, max_size=9)

Owners = npt.NDArray[np.int64]
"""(T * heads,) the row and the head that each line of (T * heads, d) belongs to, as one number."""


def grouping_of(queries: list[int], keys: list[int]) -> Grouping:
    return group_rows(np.asarray(queries), np.asarray(keys), heads=HEADS, device=CPU)


@st.composite
def groupings(draw: st.DrawFn) -> tuple[list[int], list[int], Grouping]:
    """Draw rows that attend to themselves, or to other rows of independent lengths."""
    queries = draw(long_lengths)
    others = st.lists(st.integers(0, 40), min_size=len(queries), max_size=len(queries))
    keys = queries if draw(st.booleans()) else draw(others)
    return queries, keys, grouping_of(queries, keys)


def owners(lengths: list[int]) -> Owners:
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return (rows[:, None] * HEADS + np.arange(HEADS)).ravel()


@no_deadline
@given(groupings())
def test_every_row_and_head_is_in_exactly_one_group_and_never_mixed(
    case: tuple[list[int], list[int], Grouping],
) -> None:
    queries, keys, grouping = case
    query_owner, key_owner = owners(queries), owners(keys)
    padding = len(query_owner)
    seen: list[int] = []
    for group in grouping.groups:
        query = group.gradient_index.numpy().reshape(group.rows, HEADS, group.queries)
        query_real = query != padding
        assert (query == group.query_index.numpy().reshape(query.shape))[query_real].all()
        key = group.key_index.numpy().reshape(group.rows, HEADS, group.keys)
        key_real = np.ones_like(key, bool)
        if group.key_mask is not None:
            assert set(group.key_mask.unique().tolist()) == {0.0, MASKED_SCORE}, (
                "the mask is not needed, or has other values"
            )
            key_real &= group.key_mask.numpy()[:, :, 0] == 0
        for b, head in np.ndindex(group.rows, HEADS):
            found = {*query_owner[query[b, head][query_real[b, head]]], *key_owner[key[b, head][key_real[b, head]]]}
            assert len(found) == 1, f"row {b}, head {head} of a group mixes rows and heads {found}"
            (owner,) = found
            assert head == owner % HEADS
            assert query_real[b, head].sum() == queries[owner // HEADS]
            assert key_real[b, head].sum() == keys[owner // HEADS]
            seen.append(owner)
        assert group.some_without_keys == (group.keys > 0 and not key_real.any(2).all())
    some = np.flatnonzero(np.asarray(queries) + np.asarray(keys))
    assert sorted(seen) == [row * HEADS + head for row in some for head in range(HEADS)]


@no_deadline
@given(groupings())
def test_tokens_are_gathered_in_order_and_find_their_slots(
    case: tuple[list[int], list[int], Grouping],
) -> None:
    queries, keys, grouping = case
    for rows, indices, slots, sizes in (
        (queries, [g.query_index for g in grouping.groups], grouping.query_slots, grouping.query_sizes),
        (keys, [g.key_index for g in grouping.groups], grouping.key_slots, grouping.key_sizes),
    ):
        index = torch.cat([torch.zeros(0, dtype=torch.int64), *indices])
        assert [len(each) for each in indices] == sizes
        assert ((index >= 0) & (index < max(sum(rows) * HEADS, 1))).all(), "an index outside the batch"
        assert index[slots].tolist() == list(range(sum(rows) * HEADS))


@no_deadline
@given(groupings())
def test_group_lengths_are_the_next_multiple_of_the_longest_row(
    case: tuple[list[int], list[int], Grouping],
) -> None:
    queries, keys, grouping = case
    for group in grouping.groups:
        assert (group.queries % LENGTH_MULTIPLE, group.keys % LENGTH_MULTIPLE) == (0, 0)
        assert max(queries) > group.queries - LENGTH_MULTIPLE
        assert max(keys) > group.keys - LENGTH_MULTIPLE
        if group.key_mask is not None:
            assert (group.key_mask[..., : max(group.keys - LENGTH_MULTIPLE + 1, 0)] == 0).any() or group.keys == 0


@pytest.mark.parametrize(("lengths", "padded"), [([7], 8), ([3, 3, 3], 8), ([16, 16], 16)])
def test_rows_of_one_length_form_one_group(lengths: list[int], padded: int) -> None:
    (group,) = grouping_of(lengths, lengths).groups

    assert (group.rows, group.queries, group.keys) == (len(lengths), padded, padded)
    assert (padded == lengths[0]) == (group.key_mask is None)


# Cost -----------------------------------------------------------------------------------------------------------------


Rows = list[tuple[int, int]]
"""Queries and keys of each row."""


def cost(parts: list[Rows]) -> float:
    total = 0.0
    for part in parts:
        longest = -(-max(max(row) for row in part) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        total += GROUP_COST + len(part) * longest**2
    return total


def parts_of(rows: Rows) -> list[Rows]:
    queries, keys = np.asarray(rows).T
    return [[rows[row] for row in part] for part in _partition(queries, keys)]


def partitions(items: Rows) -> Iterator[list[Rows]]:
    """Generate all ways to partition the items."""
    if not items:
        yield []
        return
    first, *rest = items
    for parts in partitions(rest):
        yield [[first], *parts]
        for i, part in enumerate(parts):
            yield [*parts[:i], [first, *part], *parts[i + 1 :]]


sizes = st.one_of(st.sampled_from([0, 70, 120]), st.integers(0, 200))  # some sizes repeat


@no_deadline
@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=6))
def test_no_partition_is_cheaper(rows: Rows) -> None:
    some = [row for row in rows if any(row)]
    parts = parts_of(rows)
    least = min(cost(parts) for parts in partitions(some))

    assert sorted(some) == sorted(row for part in parts for row in part)
    assert cost(parts) == pytest.approx(least, rel=1e-12)  # sums of floats in another order


def test_a_long_tail_gets_its_own_group() -> None:
    rows = [(n, n) for n in [*range(5, 40), 400, 410]]
    parts = parts_of(rows)

    assert cost(parts) < 0.1 * cost([rows])
    assert cost(parts) < cost([[row] for row in rows])
    assert sorted(n for part in parts for n, _ in part if n > 40) == [400, 410]
    assert all(min(part)[0] >= 400 for part in parts if max(part)[0] >= 400)


# Blocks ---------------------------------------------------------------------------------------------------------------


@no_deadline
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8))
def test_row_blocks_are_maximal_and_keep_the_order_of_rows(rows: Rows) -> None:
    blocks = row_blocks(*np.asarray(rows).T)

    assert [(block.queries, block.keys) for block in blocks for _ in range(block.rows)] == rows
    assert all((one.queries, one.keys) != (two.queries, two.keys) for one, two in pairwise(blocks))
