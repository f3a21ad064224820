"""Rows in groups: nothing lost, nothing twice, everything back in its place, and no other grouping is cheaper."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.engines.packing.layout import (
    GROUP_COST,
    HIDING,
    LOOK_COST,
    Group,
    Grouping,
    Layout,
    Segments,
    _parts,
    active,
    laid_out,
)

no_deadline = settings(deadline=None)  # a busy machine is no failure

# Around 100 tokens a group costs as much as the arithmetic of a row: there the choice is not trivial.
lengths = st.lists(st.one_of(st.integers(0, 5), st.integers(60, 160)), min_size=1, max_size=9)


def mask_of(lengths: list[int], *, side: str = "right", spare: int = 0) -> torch.Tensor:
    """(B, T) ones where real; `spare` columns of padding beyond the longest row."""
    width = max(lengths, default=0) + spare
    rows = [[1] * n + [0] * (width - n) for n in lengths]
    return torch.tensor([row if side == "right" else row[::-1] for row in rows]).view(len(lengths), width)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """A source and a target of as many rows, of lengths that have nothing to do with each other."""
    source = draw(lengths)
    target = draw(st.lists(st.integers(0, 40), min_size=len(source), max_size=len(source)))
    side, spare = draw(st.sampled_from(["left", "right"])), draw(st.integers(0, 2))
    return Layout.of(mask_of(source, side=side, spare=spare), decoder_mask=mask_of(target))


def pairs(layout: Layout) -> Iterator[tuple[Segments, Segments, Grouping]]:
    """All that a model asks for: either side with itself, the target with the source; with a gradient and without."""
    assert layout.target is not None
    for queries, keys in (
        (layout.source, layout.source),
        (layout.target, layout.target),
        (layout.target, layout.source),
    ):
        for learns in (True, False):
            yield queries, keys, layout.grouping(queries, keys, learns=learns)


def owners(segments: Segments) -> npt.NDArray[np.int64]:
    return np.repeat(np.arange(len(segments.lengths)), segments.lengths)


def places(index: torch.Tensor | slice, group: Group, length: int) -> npt.NDArray[np.int64]:
    """(b, L) the token at each place of a group."""
    n = group.rows * length
    flat = np.arange((index.start or 0) + n)[index] if isinstance(index, slice) else index.numpy()
    return flat.reshape(group.rows, length)


def gathered(segments: Segments, grouping: Grouping, side: str) -> npt.NDArray[np.int64]:
    parts = [
        places(group.query_index, group, group.queries)
        if side == "query"
        else places(group.key_index, group, group.keys)
        for group in grouping.groups
    ]
    return np.concatenate([np.zeros(0, np.int64), *[part.ravel() for part in parts]])


# Rows -----------------------------------------------------------------------------------------------------------------


@no_deadline
@given(lengths, st.sampled_from(["left", "right"]), st.integers(0, 3))
def test_segments_say_where_every_token_was_and_is(lengths: list[int], side: str, spare: int) -> None:
    mask = mask_of(lengths, side=side, spare=spare)
    segments = Layout.of(mask).source
    real = [(row, column) for row in range(len(lengths)) for column in range(mask.shape[1]) if mask[row, column]]

    assert [0, *np.cumsum(lengths).tolist()] == segments.offsets.tolist()
    assert [place for n in lengths for place in range(n)] == segments.positions.tolist()
    assert [row * mask.shape[1] + column for row, column in real] == segments.real.tolist()
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


# Groups ---------------------------------------------------------------------------------------------------------------


@no_deadline
@given(layouts())
def test_every_row_is_in_one_group_and_no_group_mixes_rows(layout: Layout) -> None:
    for queries, keys, grouping in pairs(layout):
        query_owner, key_owner = owners(queries), owners(keys)
        seen: list[int] = []
        for group in grouping.groups:
            query, key = places(group.query_index, group, group.queries), places(group.key_index, group, group.keys)
            asked = np.ones_like(query, bool) if group.unasked is None else ~group.unasked.numpy()[:, :, 0]
            shown = np.ones_like(key, bool) if group.hidden is None else ~group.hidden.numpy()[:, 0]
            for b in range(group.rows):
                rows = {*query_owner[query[b][asked[b]]].tolist(), *key_owner[key[b][shown[b]]].tolist()}
                assert 1 == len(rows), f"place {b} of a group holds tokens of rows {rows}"
                row = rows.pop()
                assert queries.lengths[row] == asked[b].sum()
                assert keys.lengths[row] == shown[b].sum()
                seen.append(row)
        assert np.flatnonzero(queries.lengths + keys.lengths).tolist() == sorted(seen)


@no_deadline
@given(layouts())
def test_every_index_is_a_token_of_the_batch(layout: Layout) -> None:
    for queries, keys, grouping in pairs(layout):
        for side, segments in (("query", queries), ("key", keys)):
            index = gathered(segments, grouping, side)
            assert ((0 <= index) & (index < segments.offsets[-1])).all()


@no_deadline
@given(layouts())
def test_what_was_gathered_comes_back_in_order(layout: Layout) -> None:
    for queries, keys, grouping in pairs(layout):
        for side, segments, place in (("query", queries, grouping.query_place), ("key", keys, grouping.key_place)):
            index = gathered(segments, grouping, side)
            back = index if place is None else index[place.numpy()]
            assert list(range(segments.offsets[-1])) == back.tolist()


@pytest.mark.parametrize("learns", [True, False])
def test_padding_at_the_end_of_a_group_does_not_come_back(learns: bool) -> None:
    """All tokens are in their order, and yet there is one place more than tokens."""
    layout = Layout.of(mask_of([4, 3]))
    grouping = layout.grouping(layout.source, layout.source, learns=learns)

    assert 8 == len(gathered(layout.source, grouping, "query"))
    for place in (grouping.query_place, grouping.key_place):
        assert place is not None
        assert list(range(7)) == place.tolist()


@no_deadline
@given(layouts())
def test_padding_is_marked_wherever_rows_of_a_group_differ(layout: Layout) -> None:
    for _, _, grouping in pairs(layout):
        for group in grouping.groups:
            for mark in (group.unasked, group.hidden):
                assert mark is None or mark.any(), "a mask that hides nothing"


@pytest.mark.parametrize("lengths", [[7], [3, 3, 3], [1, 1]])
def test_rows_of_one_length_are_one_group_as_they_lie(lengths: list[int]) -> None:
    layout = Layout.of(mask_of(lengths, spare=2))
    grouping = layout.grouping(layout.source, layout.source)

    (group,) = grouping.groups
    assert (len(lengths), lengths[0], lengths[0]) == (group.rows, group.queries, group.keys)
    assert [slice(None)] * 2 == [group.query_index, group.key_index]
    assert {None} == {group.hidden, group.unasked, grouping.query_place, grouping.key_place}


def test_without_a_gradient_long_rows_are_attended_to_as_they_lie() -> None:
    """The longest first, as an evaluation takes them: no token is moved, and nothing padded."""
    layout = Layout.of(mask_of([240, 200, 200, 190, 150]))
    grouping = layout.grouping(layout.source, layout.source, learns=False)

    assert [1, 2, 1, 1] == [group.rows for group in grouping.groups]
    assert [slice(0, 240), slice(240, 640)] == [group.key_index for group in grouping.groups[:2]]
    assert {None} == {mark for group in grouping.groups for mark in (group.hidden, group.unasked)}
    assert (None, None) == (grouping.query_place, grouping.key_place)


def test_a_grouping_is_made_once_a_batch() -> None:
    layout = Layout.of(mask_of([3, 90, 4]))

    for learns in (True, False):
        first, again = (layout.grouping(layout.source, layout.source, learns=learns) for _ in range(2))
        assert first is again


# Cost -----------------------------------------------------------------------------------------------------------------


Rows = list[tuple[int, int]]
"""Queries and keys of each row."""


def cost(parts: list[Rows], *, learns: bool = True) -> float:
    total = 0.0
    for part in parts:
        places = len(part) * max(max(row) for row in part) ** 2
        total += GROUP_COST + places if learns else LOOK_COST + places * (HIDING if len(set(part)) > 1 else 1)
    return total


def grouped(rows: Rows, *, learns: bool = True) -> list[Rows]:
    queries, keys = np.asarray(rows).T
    return [[rows[row] for row in part] for part in _parts(queries, keys, learns=learns)]


def partitions(items: Rows) -> Iterator[list[Rows]]:
    """All ways to put the items into groups."""
    if not items:
        yield []
        return
    first, *rest = items
    for parts in partitions(rest):
        yield [[first], *parts]
        for i, part in enumerate(parts):
            yield [*parts[:i], [first, *part], *parts[i + 1 :]]


sizes = st.one_of(st.sampled_from([0, 70, 120]), st.integers(0, 200))  # some are met twice


@no_deadline
@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=6), st.booleans())
def test_no_way_to_group_rows_is_cheaper(rows: Rows, learns: bool) -> None:
    some = [row for row in rows if any(row)]
    parts = grouped(rows, learns=learns)
    least = min(cost(parts, learns=learns) for parts in partitions(some))

    assert sorted(some) == sorted(row for part in parts for row in part)
    assert least == pytest.approx(cost(parts, learns=learns), rel=1e-12)  # sums of floats in another order


def test_a_long_tail_is_cheaper_than_one_group_and_than_one_row_a_group() -> None:
    rows = [(n, n) for n in [*range(5, 40), 400, 410]]
    parts = grouped(rows)

    assert cost(parts) < 0.1 * cost([rows])
    assert cost(parts) < cost([[row] for row in rows])
    assert [400, 410] == sorted(n for part in parts for n, _ in part if n > 40)
    assert all(min(part)[0] >= 400 for part in parts if max(part)[0] >= 400)


# The layout on its way ------------------------------------------------------------------------------------------------


def test_a_layout_is_active_within_and_gone_after_an_error() -> None:
    layout = Layout.of(mask_of([1, 2]))
    found = []
    with contextlib.suppress(RuntimeError), laid_out(layout):
        found.append(active())
        raise RuntimeError("lost")

    assert [layout, None] == [*found, active()]
