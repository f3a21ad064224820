"""Ragged arrays: rows from lists, arrays and Arrow columns, and back."""

import numpy as np
import pyarrow as pa
import pytest

from touchstone.stages.ragged import Ragged

ROWS = [[3, 1], [], [4], [], []]


def test_rows_are_unchanged_by_lists_arrays_and_arrow() -> None:
    ragged = Ragged.from_lists(ROWS)
    assert ragged.to_lists() == ROWS
    assert Ragged.from_arrays([np.array(row, np.int64) for row in ROWS]).to_lists() == ROWS
    assert Ragged.from_arrow(ragged.to_arrow()).to_lists() == ROWS
    assert Ragged.from_arrow(pa.chunked_array([pa.array(ROWS[:2], pa.list_(pa.int32())), ROWS[2:]])) == ragged


def test_none_is_minus_one_from_lists_and_from_arrow() -> None:
    rows = [[None, 0, None], [5]]
    assert Ragged.from_lists(rows).to_lists() == [[-1, 0, -1], [5]]
    assert Ragged.from_arrow(pa.array(rows)).to_lists() == [[-1, 0, -1], [5]]


def test_a_slice_of_an_arrow_column_keeps_only_its_rows() -> None:
    assert Ragged.from_arrow(pa.array(ROWS, pa.list_(pa.int64())).slice(2)).to_lists() == ROWS[2:]
    assert Ragged.from_arrow(pa.array(ROWS, pa.list_(pa.int64())).slice(0, 2)).to_lists() == ROWS[:2]


def test_from_arrow_accepts_fixed_size_lists() -> None:
    assert Ragged.from_arrow(pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2))).to_lists() == [[1, 2], [3, 4]]


def test_an_empty_column_has_no_rows() -> None:
    empty = Ragged.from_lists([])
    assert (len(empty), empty.to_lists(), len(empty.values)) == (0, [], 0)
    assert Ragged.from_arrow(pa.chunked_array([], pa.list_(pa.int64()))) == empty


def test_rows_and_lengths_describe_the_shape() -> None:
    ragged = Ragged.from_lists(ROWS)
    assert ragged.lengths.tolist() == [2, 0, 1, 0, 0]
    assert ragged.rows.tolist() == [0, 0, 2]
    assert ragged.with_values(ragged.values * 2).to_lists() == [[6, 2], [], [8], [], []]


def test_rows_can_be_indexed_from_both_ends() -> None:
    ragged = Ragged.from_lists(ROWS)
    assert [4] == ragged[2].tolist() == ragged[-3].tolist()
    for row in (5, -6):
        with pytest.raises(IndexError, match=f"row {row} of 5"):
            ragged[row]


@pytest.mark.parametrize(
    ("offsets", "message"),
    [([0, 2], "from 0 to 3"), ([1, 3], "from 0 to 3"), ([], "from 0 to 3"), ([0, 2, 1, 3], "decrease after row 1")],
)
def test_offsets_that_do_not_cut_the_values_are_refused(offsets: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ragged(np.arange(3), np.array(offsets, np.int64))


def test_from_arrow_refuses_a_null_row() -> None:
    with pytest.raises(ValueError, match="row 1 is null: use an empty list for an empty row"):
        Ragged.from_arrow(pa.array([[1], None]))


def test_values_that_are_not_integers_are_refused() -> None:
    with pytest.raises(ValueError, match="double"):
        Ragged.from_arrow(pa.array([[1.5]]))


def test_ragged_arrays_with_other_shapes_or_values_are_not_equal() -> None:
    assert Ragged.from_lists([[1], [2]]) != Ragged.from_lists([[1, 2], []])
    assert Ragged.from_lists([[1]]) != Ragged.from_lists([[2]])
    assert Ragged.from_lists([[1]]) != [[1]]


@pytest.mark.parametrize("rows", [[], [2], [4, 0, 0, 2, 1], [1, 3]])
def test_rows_are_taken_in_any_order_and_any_number_of_times(rows: list[int]) -> None:
    ragged = Ragged.from_lists(ROWS)
    taken = ragged.take(np.array(rows, np.int64))
    assert taken.to_lists() == [ROWS[row] for row in rows]
    assert not np.shares_memory(ragged.values, taken.values)


def test_concatenate_keeps_the_order_of_the_parts() -> None:
    assert Ragged.concatenate([Ragged.from_lists(ROWS), Ragged.from_lists(ROWS[:2])]).to_lists() == [*ROWS, *ROWS[:2]]
    assert Ragged.concatenate([]).to_lists() == []
