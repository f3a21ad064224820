"""Rows in groups: nothing lost, nothing twice, everything back in its place, and no other grouping is cheaper."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from touchstone.packed.grouping import GROUP_COST, LEAST, STEP, Grouping, _parts, grouped, runs_of

no_deadline = settings(deadline=None)  # a busy machine is no failure
HEADS = 2
CPU = torch.device("cpu")

# Around 100 tokens a group costs as much as the arithmetic of a row: there the choice is not trivial.
lengths = st.lists(st.one_of(st.integers(0, 5), st.integers(60, 160)), min_size=1, max_size=9)

Owners = npt.NDArray[np.int64]
"""(T * heads,) of each row of (T * heads, d) the row of the batch and the head, as one number."""


def made(queries: list[int], keys: list[int]) -> Grouping:
    return grouped(np.asarray(queries), np.asarray(keys), heads=HEADS, device=CPU)


@st.composite
def groupings(draw: st.DrawFn) -> tuple[list[int], list[int], Grouping]:
    """Rows with themselves, or a target with a source whose lengths have nothing to do with its own."""
    queries = draw(lengths)
    others = st.lists(st.integers(0, 40), min_size=len(queries), max_size=len(queries))
    keys = queries if draw(st.booleans()) else draw(others)
    return queries, keys, made(queries, keys)


def owners(lengths: list[int]) -> Owners:
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return (rows[:, None] * HEADS + np.arange(HEADS)).ravel()


@no_deadline
@given(groupings())
def test_every_row_and_head_is_in_one_group_and_none_are_mixed(case: tuple[list[int], list[int], Grouping]) -> None:
    queries, keys, grouping = case
    query_owner, key_owner = owners(queries), owners(keys)
    nothing = len(query_owner)
    seen: list[int] = []
    for group in grouping.groups:
        wanted = group.gradient_index.numpy().reshape(group.rows, HEADS, group.queries)
        asked = wanted != nothing
        assert (wanted == group.query_index.numpy().reshape(wanted.shape))[asked].all()
        key = group.key_index.numpy().reshape(group.rows, HEADS, group.keys)
        shown = np.ones_like(key, bool)
        if group.hidden is not None:
            assert set(group.hidden.unique().tolist()) == {0.0, LEAST}, "a mask that hides nothing, or half of it"
            shown &= group.hidden.numpy()[:, :, 0] == 0
        for b, head in np.ndindex(group.rows, HEADS):
            found = {*query_owner[wanted[b, head][asked[b, head]]], *key_owner[key[b, head][shown[b, head]]]}
            assert len(found) == 1, f"place {b}, {head} of a group holds tokens of rows and heads {found}"
            (owner,) = found
            assert head == owner % HEADS
            assert asked[b, head].sum() == queries[owner // HEADS]
            assert shown[b, head].sum() == keys[owner // HEADS]
            seen.append(owner)
        assert group.blind == (group.keys > 0 and not shown.any(2).all())
    some = np.flatnonzero(np.asarray(queries) + np.asarray(keys))
    assert sorted(seen) == [row * HEADS + head for row in some for head in range(HEADS)]


@no_deadline
@given(groupings())
def test_tokens_of_a_row_are_gathered_in_their_order_and_come_back(
    case: tuple[list[int], list[int], Grouping],
) -> None:
    queries, keys, grouping = case
    for rows, indices, place, places, by_group in (
        (queries, [g.query_index for g in grouping.groups], grouping.query_place, grouping.query_places,
         grouping.queries_by_group),
        (keys, [g.key_index for g in grouping.groups], grouping.key_place, grouping.key_places,
         grouping.keys_by_group),
    ):  # fmt: skip
        index = torch.cat([torch.zeros(0, dtype=torch.int64), *indices])
        assert [len(each) for each in indices] == by_group
        assert len(index) == places
        assert ((index >= 0) & (index < max(sum(rows) * HEADS, 1))).all(), "no token of the batch"
        assert list(range(sum(rows) * HEADS)) == index[place].tolist()


@no_deadline
@given(groupings())
def test_groups_come_in_few_lengths_and_are_no_longer_than_need_be(
    case: tuple[list[int], list[int], Grouping],
) -> None:
    queries, keys, grouping = case
    for group in grouping.groups:
        assert (group.queries % STEP, group.keys % STEP) == (0, 0)
        assert max(queries) > group.queries - STEP
        assert max(keys) > group.keys - STEP
        if group.hidden is not None:
            assert (group.hidden[..., : max(group.keys - STEP + 1, 0)] == 0).any() or group.keys == 0


@pytest.mark.parametrize(("lengths", "padded"), [([7], 8), ([3, 3, 3], 8), ([16, 16], 16)])
def test_rows_of_one_length_are_one_group(lengths: list[int], padded: int) -> None:
    (group,) = made(lengths, lengths).groups

    assert (len(lengths), padded, padded) == (group.rows, group.queries, group.keys)
    assert (padded == lengths[0]) == (group.hidden is None)


# Cost -----------------------------------------------------------------------------------------------------------------


Rows = list[tuple[int, int]]
"""Queries and keys of each row."""


def cost(parts: list[Rows]) -> float:
    total = 0.0
    for part in parts:
        longest = -(-max(max(row) for row in part) // STEP) * STEP
        total += GROUP_COST + len(part) * longest**2
    return total


def parts_of(rows: Rows) -> list[Rows]:
    queries, keys = np.asarray(rows).T
    return [[rows[row] for row in part] for part in _parts(queries, keys)]


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
@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=6))
def test_no_way_to_group_rows_is_cheaper(rows: Rows) -> None:
    some = [row for row in rows if any(row)]
    parts = parts_of(rows)
    least = min(cost(parts) for parts in partitions(some))

    assert sorted(some) == sorted(row for part in parts for row in part)
    assert least == pytest.approx(cost(parts), rel=1e-12)  # sums of floats in another order


def test_a_long_tail_is_cheaper_than_one_group_and_than_one_row_a_group() -> None:
    rows = [(n, n) for n in [*range(5, 40), 400, 410]]
    parts = parts_of(rows)

    assert cost(parts) < 0.1 * cost([rows])
    assert cost(parts) < cost([[row] for row in rows])
    assert sorted(n for part in parts for n, _ in part if n > 40) == [400, 410]
    assert all(min(part)[0] >= 400 for part in parts if max(part)[0] >= 400)


# Runs -----------------------------------------------------------------------------------------------------------------


@no_deadline
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8))
def test_runs_are_the_rows_in_their_order_and_as_long_as_can_be(rows: Rows) -> None:
    runs = runs_of(*np.asarray(rows).T)

    assert [(run.queries, run.keys) for run in runs for _ in range(run.rows)] == rows
    assert all((one.queries, one.keys) != (two.queries, two.keys) for one, two in pairwise(runs))
