"""Packing by hand and against transformers' collator, and bins against the smallest possible number."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from transformers import DataCollatorWithFlattening

from touchstone.stages import assign_bins, assign_bins_batch, pack, pack_batch, unpack
from touchstone.stages.ragged import Ragged

FEATURES = [
    {"input_ids": [5, 6, 7], "labels": [1, 2, -100], "word_ids": [None, 0, 0], "example": 30},
    {"input_ids": [], "labels": [], "word_ids": [], "example": 31},
    {"input_ids": [8], "labels": [3], "word_ids": [0], "example": 32},
]


def as_lists(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: array.tolist() for name, array in batch.items()}


def test_pack_concatenates_rows_and_restarts_positions() -> None:
    expected = {
        "input_ids": [5, 6, 7, 8],
        "labels": [1, 2, -100, 3],
        "word_ids": [-1, 0, 0, 0],
        "example": [30, 31, 32],
        "position_ids": [0, 1, 2, 0],
        "offsets": [0, 3, 3, 4],
    }
    packed = pack(FEATURES, pad_id=9)
    assert as_lists(packed) == expected
    assert {array.dtype for array in packed.values()} == {np.dtype(np.int64)}


def test_the_padding_is_a_separate_segment() -> None:
    expected = {
        "input_ids": [5, 6, 7, 8, 9, 9],
        "labels": [1, 2, -100, 3, -100, -100],
        "word_ids": [-1, 0, 0, 0, -1, -1],
        "example": [30, 31, 32],
        "position_ids": [2, 3, 4, 2, 2, 2],
        "offsets": [0, 3, 3, 4, 6],
    }
    assert as_lists(pack(FEATURES, pad_id=9, first_position=2, multiple_of=6)) == expected


def test_the_number_of_segments_does_not_depend_on_the_lengths() -> None:
    assert pack(FEATURES, pad_id=9, multiple_of=4)["offsets"].tolist() == [0, 3, 3, 4, 4]


def test_unpack_splits_a_models_outputs_by_row() -> None:
    logits = np.arange(12.0).reshape(6, 2)
    rows = unpack(logits, offsets=pack(FEATURES, pad_id=9, multiple_of=6)["offsets"], rows=3)
    assert [row.tolist() for row in rows] == [[[0, 1], [2, 3], [4, 5]], [], [[6, 7]]]


def test_unpack_returns_no_rows_for_no_segments() -> None:
    assert unpack([], offsets=[0]) == []


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ([], {}, "no features"),
        ([{"example": 3}], {}, "packing needs a column of sequences"),
        ([{"input_ids": [1], "offsets": [0]}], {}, "'offsets', which packing adds"),
        ([{"input_ids": [1], "attention_mask": [1]}, {"input_ids": [1, 0], "attention_mask": [1, 0]}], {},
         r"features\[1\] has attention_mask\[1\] = 0"),
        ([{"input_ids": [1]}], {"first_position": -1}, "first_position is -1"),
        ([{"input_ids": [1]}], {"multiple_of": 0}, "multiple_of is 0"),
        ([{"input_ids": [1], "bbox": [1]}], {"multiple_of": 2}, "'bbox' needs 1 values of padding"),
    ],
)  # fmt: skip
def test_pack_refuses_invalid_features(features: list[Any], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(features, pad_id=0, **options)


def test_pack_batch_refuses_columns_of_different_lengths_and_no_rows() -> None:
    ids = Ragged.from_lists([[1, 2], [3]])
    with pytest.raises(ValueError, match="'labels' has rows of other lengths than column 'input_ids'"):
        pack_batch({"input_ids": ids, "labels": Ragged.from_lists([[1], [2, 3]])}, pad_id=0)
    with pytest.raises(ValueError, match="no rows"):
        pack_batch({"input_ids": Ragged.from_lists([])}, pad_id=0)


def test_pack_equals_transformers_except_for_the_first_label_of_each_row() -> None:
    features = [{name: feature[name] for name in ("input_ids", "labels")} for feature in (FEATURES[0], FEATURES[2])]
    collator = DataCollatorWithFlattening(return_tensors="np", return_flash_attn_kwargs=True, position_ids_start=2)
    theirs = collator(features)
    ours = pack(features, pad_id=0, first_position=2)
    assert ours["input_ids"].tolist() == theirs["input_ids"][0].tolist()
    assert ours["position_ids"].tolist() == theirs["position_ids"][0].tolist()
    assert ours["offsets"].tolist() == theirs["cu_seq_lens_q"].tolist()
    assert ours["labels"].tolist() == [1, 2, -100, 3]
    assert theirs["labels"][0].tolist() == [-100, 2, -100, -100]


# Bins -----------------------------------------------------------------------------------------------------------------


def test_assign_bins_puts_the_longest_first_into_the_first_bin_with_room() -> None:
    # 7 | 6 | 5 5 | 4 fits the second (6 + 4) | 3 fits the first (7 + 3) | 1 needs a new bin
    assert assign_bins([6, 5, 7, 4, 5, 3, 1], capacity=10) == [[2, 5], [0, 3], [1, 4], [6]]


def test_assign_bins_accepts_sequences_without_tokens() -> None:
    assert assign_bins([0, 4, 0], capacity=4) == [[0, 1, 2]]
    assert assign_bins([0, 0], capacity=4) == [[0, 1]]
    assert assign_bins([], capacity=4) == []


def fewest(lengths: list[int], capacity: int) -> int:
    """Return the smallest possible number of bins: some order fills them one after the other."""

    def in_order(order: tuple[int, ...]) -> int:
        bins, room = 0, 0
        for length in order:
            if length > room:
                bins, room = bins + 1, capacity
            room -= length
        return bins

    return min(map(in_order, set(permutations(lengths))))


@pytest.mark.parametrize("seed", range(20))
def test_assign_bins_opens_few_more_bins_than_needed(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 11, size=7).tolist()
    # the proved bound of first fit decreasing: 11/9 of the smallest number, plus 6/9 (Dosa 2007)
    assert len(assign_bins(lengths, capacity=10)) <= 11 / 9 * fewest(lengths, 10) + 6 / 9


@pytest.mark.parametrize("seed", range(5))
def test_assign_bins_batch_equals_assign_bins_for_many_bins(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = np.minimum(generator.geometric(0.05, size=700), 128)
    assert assign_bins(lengths, capacity=128) == assign_bins_batch(lengths, capacity=128).to_lists()
