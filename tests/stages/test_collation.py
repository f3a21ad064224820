"""Padding by hand and against transformers' collator, and refused input."""

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerFast
from transformers.utils import logging

from touchstone.stages import pad_batch

FEATURES = [
    {"input_ids": [5, 6, 7], "labels": [1, 2, -100], "token_type_ids": [0, 1, 1]},
    {"input_ids": [8], "labels": [3], "token_type_ids": [1]},
]


def as_lists(batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    return {name: array.tolist() for name, array in batch.items()}


def test_every_column_is_padded_with_its_own_fill_on_the_right() -> None:
    expected = {
        "input_ids": [[5, 6, 7], [8, 9, 9]],
        "labels": [[1, 2, -100], [3, -100, -100]],
        "token_type_ids": [[0, 1, 1], [1, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
    }
    batch = pad_batch(FEATURES, pad_id=9)
    assert as_lists(batch) == expected
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


def test_every_column_is_padded_with_its_own_fill_on_the_left() -> None:
    expected = {
        "input_ids": [[5, 6, 7], [9, 9, 8]],
        "labels": [[1, 2, -100], [-100, -100, 3]],
        "token_type_ids": [[0, 1, 1], [0, 0, 1]],
        "attention_mask": [[1, 1, 1], [0, 0, 1]],
    }
    assert as_lists(pad_batch(FEATURES, pad_id=9, side="left")) == expected


def test_special_tokens_are_masked_and_missing_word_ids_are_minus_one() -> None:
    features = [
        {"input_ids": [1, 2], "special_tokens_mask": [1, 0], "word_ids": [None, 0]},
        {"input_ids": [1], "special_tokens_mask": [1], "word_ids": [None]},
    ]
    batch = as_lists(pad_batch(features, pad_id=0))
    assert batch["special_tokens_mask"] == [[1, 0], [1, 1]]
    assert batch["word_ids"] == [[-1, 0], [-1, -1]]


@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({}, 3),
        ({"length": 5}, 5),
        ({"multiple_of": 4}, 4),
        ({"multiple_of": 3}, 3),
        ({"length": 9, "multiple_of": 8}, 16),
    ],
)
def test_the_width_is_the_longest_or_the_length_rounded_up(options: dict[str, int], width: int) -> None:
    batch = pad_batch(FEATURES, pad_id=9, **options)
    assert {array.shape for array in batch.values()} == {(2, width)}


def test_pad_batch_keeps_a_given_attention_mask() -> None:
    features = [{"input_ids": [5, 0, 6, 0], "attention_mask": [1, 1, 0, 1]}, {"input_ids": [0], "attention_mask": [0]}]
    assert pad_batch(features, pad_id=0)["attention_mask"].tolist() == [[1, 1, 0, 1], [0, 0, 0, 0]]


def test_a_real_end_of_sequence_keeps_its_label_if_it_is_also_the_pad_id() -> None:
    features = [
        {"input_ids": [5, 2], "labels": [5, 2], "attention_mask": [1, 1]},
        {"input_ids": [2], "labels": [2], "attention_mask": [1]},
    ]
    assert pad_batch(features, pad_id=2)["labels"].tolist() == [[5, 2], [2, -100]]


def test_single_integers_become_a_column_in_the_order_of_the_features() -> None:
    features = [{"input_ids": [1], "example": 7, "epoch": np.int64(2)}, {"example": 3, "epoch": 2, "input_ids": [4, 4]}]
    batch = pad_batch(features, pad_id=0)
    assert list(batch) == ["input_ids", "example", "epoch", "attention_mask"]
    assert (batch["example"].tolist(), batch["epoch"].tolist()) == ([7, 3], [2, 2])
    assert as_lists(pad_batch([{"example": 7}, {"example": 3}], pad_id=0)) == {"example": [7, 3]}


def test_pad_batch_accepts_lists_tuples_arrays_and_tensors() -> None:
    kinds: list[Any] = [list, tuple, np.array, torch.tensor, lambda ids: np.array(ids, np.int32)]
    for kind in kinds:
        assert pad_batch([{"input_ids": kind([3, 4])}, {"input_ids": [5]}], pad_id=0)["input_ids"].tolist() == [
            [3, 4],
            [5, 0],
        ]


def test_a_feature_without_tokens_is_all_padding() -> None:
    features = [{"input_ids": [], "labels": []}, {"input_ids": [4], "labels": [1]}]
    batch = as_lists(pad_batch(features, pad_id=0))
    assert batch == {"input_ids": [[0], [4]], "labels": [[-100], [1]], "attention_mask": [[0], [1]]}
    assert pad_batch([{"input_ids": []}], pad_id=0)["input_ids"].shape == (1, 0)


def test_an_unknown_column_is_accepted_if_nothing_is_padded() -> None:
    features = [{"input_ids": [4, 5], "entity": [1, 2]}, {"input_ids": [6, 7], "entity": [3, 4]}]
    assert pad_batch(features, pad_id=0)["entity"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_pad_batch_equals_transformers_padding_for_the_columns_that_both_know(side: str) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"[PAD]": 0}, unk_token="[PAD]")),
        pad_token="[PAD]",
        padding_side=side,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    random = np.random.default_rng(0)
    features = [
        {
            "input_ids": random.integers(1, 99, size).tolist(),
            "token_type_ids": random.integers(0, 2, size).tolist(),
            "attention_mask": [1] * size,
            "labels": random.integers(-1, 9, size).tolist(),
        }
        for size in random.integers(1, 30, size=16).tolist()
    ]
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would advise to tokenize and pad at once
    theirs = DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=8)([dict(f) for f in features])
    logging.set_verbosity(verbosity)
    ours = pad_batch(features, pad_id=0, side=side, multiple_of=8)
    assert as_lists(ours) == {name: tensor.tolist() for name, tensor in theirs.items()}


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ([], {}, "no features"),
        ([{"input_ids": [1]}], {"side": "both"}, "side 'both'"),
        ([{"input_ids": [1]}], {"multiple_of": 0}, "multiple_of is 0"),
        (
            [{"input_ids": [1]}, {"input_ids": [1, 2, 3]}],
            {"length": 2},
            r"features\[1\] has 3 tokens, more than length=2",
        ),
        ([{"input_ids": [1], "labels": [1, 2]}], {}, r"features\[0\] has columns of unequal length"),
        ([{"input_ids": [1]}, {"labels": [1]}], {}, r"features\[1\] has the columns \['labels'\]"),
        ([{"input_ids": [1], "labels": 1}, {"input_ids": [1], "labels": [1]}], {}, "'labels' is one integer in"),
        ([{"input_ids": [1], "pos": [1]}, {"input_ids": [1, 2], "pos": [1, 2]}], {}, "'pos' needs padding to 2"),
        ([{"input_ids": [1], "labels": [None]}], {}, r"features\[0\]\['labels'\] is not an integer"),
        ([{"input_ids": [1.5]}], {}, r"features\[0\]\['input_ids'\] is not an integer"),
        ([{"input_ids": [[1], [2]]}], {}, r"features\[0\]\['input_ids'\] is not an integer"),
        ([{"input_ids": "text"}], {}, r"features\[0\]\['input_ids'\] is not an integer"),
        ([{"input_ids": [1]}, {"input_ids": [1, 0]}], {}, r"features\[1\] has no attention_mask.*at the right end"),
        ([{"input_ids": [0, 1]}], {"side": "left"}, r"features\[0\] has no attention_mask.*at the left end"),
    ],
)
def test_pad_batch_refuses_invalid_input(features: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pad_batch(features, pad_id=0, **options)


def test_pad_batch_does_not_change_its_input_or_share_memory_with_it() -> None:
    ids = np.array([1, 2])
    features = [{"input_ids": ids, "labels": ids}]
    batch = pad_batch(features, pad_id=0)
    batch["input_ids"][:] = 77
    assert [1, 2] == ids.tolist() == batch["labels"][0].tolist()
    assert list(features[0]) == ["input_ids", "labels"]
