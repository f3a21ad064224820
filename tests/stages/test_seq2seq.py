"""Padding, shifting and cleaning by hand, and against the models of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.marian.modeling_marian import shift_tokens_right as marian_shift
from transformers.models.mbart.modeling_mbart import shift_tokens_right as mbart_shift

from touchstone.stages import clean_sequences, pad_seq2seq, shift_right

PAIRS = [
    {"input_ids": [5, 6, 7], "labels": [8, 1]},
    {"input_ids": [5], "labels": [8, 9, 9, 9, 1]},
]


def test_source_and_target_are_padded_to_different_widths() -> None:
    batch = pad_seq2seq(PAIRS, pad_id=0)

    assert batch["input_ids"].tolist() == [[5, 6, 7], [5, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[8, 1, -100, -100, -100], [8, 9, 9, 9, 1]]
    assert batch.keys() == {"input_ids", "attention_mask", "labels"}


def test_length_sets_the_source_width_label_length_the_target_width_and_both_are_rounded_up() -> None:
    batch = pad_seq2seq(PAIRS, pad_id=0, length=3, label_length=6, multiple_of=4)

    assert batch["input_ids"].shape == (2, 4)
    assert batch["labels"].shape == (2, 8)


def test_source_and_target_are_padded_on_different_sides() -> None:
    batch = pad_seq2seq(PAIRS, pad_id=0, side="left")

    assert batch["input_ids"][1].tolist() == [0, 0, 5]
    assert batch["labels"][0].tolist() == [8, 1, -100, -100, -100]
    assert pad_seq2seq(PAIRS, pad_id=0, label_side="left")["labels"][0].tolist() == [-100, -100, -100, 8, 1]


def test_the_decoders_mask_is_padded_with_the_labels() -> None:
    pairs = [{**pair, "decoder_attention_mask": [1] * len(pair["labels"])} for pair in PAIRS]

    assert pad_seq2seq(pairs, pad_id=0)["decoder_attention_mask"].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]


WRONG_PAIRS: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
    ([], {}, "no features"),
    (PAIRS, {"label_side": "top"}, "label_side 'top' is unknown: use one of right, left"),
    (PAIRS, {"side": "top"}, "side 'top' is unknown"),
    (PAIRS, {"label_length": 4}, r"features\[1\] has 5 tokens, more than label_length=4: truncate it first"),
    (PAIRS, {"length": 2}, r"features\[0\] has 3 tokens, more than length=2"),
    ([PAIRS[0], {"input_ids": [1]}], {}, r"features\[1\] has no labels, only \['input_ids'\]: tokenize the target too"),
    ([{"input_ids": [1], "labels": 3}], {}, r"features\[0\]\['labels'\] is 3: it must be a sequence"),
    ([{"input_ids": [4, 0], "labels": [1]}], {}, "pass the attention_mask"),
]


@pytest.mark.parametrize(("features", "options", "message"), WRONG_PAIRS)
def test_pad_seq2seq_refuses_invalid_pairs(
    features: list[dict[str, Any]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pad_seq2seq(features, pad_id=0, **options)


LABELS = [[7, 8, 9, 1], [7, 1, -100, -100]]


@pytest.mark.parametrize("start_id", [0, 2, 5])
def test_shift_right_with_a_start_id_equals_marian(start_id: int) -> None:
    expected = marian_shift(torch.tensor(LABELS), 0, start_id).tolist()

    assert shift_right(LABELS, pad_id=0, start_id=start_id).tolist() == expected
    assert [[start_id, 7, 8, 9], [start_id, 7, 1, 0]] == expected


def test_shift_right_without_a_start_id_equals_mbart() -> None:
    expected = mbart_shift(torch.tensor(LABELS), 0).tolist()

    assert shift_right(LABELS, pad_id=0).tolist() == expected
    assert expected == [[1, 7, 8, 9], [1, 7, 1, 0]]


def test_shift_right_accepts_labels_without_columns() -> None:
    assert shift_right(np.zeros((2, 0), np.int64), pad_id=0, start_id=3).shape == (2, 0)


WRONG_LABELS: list[tuple[Any, int | None, str]] = [
    ([1, 2], 0, r"labels have shape \(2,\) and type int64: pass \(B, T\) integers"),
    ([[1.5]], 0, "type float64"),
    ([[1, -7]], 0, r"labels\[0\]\[1\] is -7: a label is a token id, or -100"),
    ([[1, 2], [-100, 7]], 3, r"labels\[1\] begins with padding \(-100\).*pad labels on the right"),
    ([[0, 7]], None, r"labels\[0\] begins with padding \(0\)"),
    ([[-100, 0]], None, r"labels\[0\] is padding only: .*pass start_id"),
    ([[1]], -1, "start_id is -1: it must be a token id"),
]


@pytest.mark.parametrize(("labels", "start_id", "message"), WRONG_LABELS)
def test_shift_right_refuses_invalid_labels(labels: Any, start_id: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shift_right(labels, pad_id=0, start_id=start_id)


CLEANED = [  # as T5, BART and GPT-2 write them: sequence, pad, eos, start, tokens
    ([0, 5, 6, 1, 0, -100], 0, 1, 0, [5, 6]),
    ([2, 0, 5, 6, 2, 1, 1], 1, 2, 2, [0, 5, 6]),
    ([5, 6, 9, 9, 9], 9, 9, None, [5, 6]),
    ([5, -100, 6], 0, 1, None, [5, 6]),
    ([5, 1, 6, 1], 0, 1, None, [5]),
    ([3, 3, 5], 0, 1, 3, [3, 5]),
    ([], 0, 1, 3, []),
    ([-100, -100], 0, 1, 3, []),
    ([7, 7], 7, 7, 7, []),
]


@pytest.mark.parametrize(("sequence", "pad_id", "eos_id", "start_id", "tokens"), CLEANED)
def test_clean_sequences_removes_start_end_and_padding(
    sequence: list[int], pad_id: int, eos_id: int, start_id: int | None, tokens: list[int]
) -> None:
    came = clean_sequences([sequence], pad_id=pad_id, eos_id=eos_id, start_id=start_id)

    assert [tokens] == came
    assert all(type(id) is int for row in came for id in row)


def test_clean_sequences_refuses_a_negative_id() -> None:
    with pytest.raises(ValueError, match=r"sequences\[1\]\[2\] is -7: an id is 0 or more, or -100"):
        clean_sequences([[1], [4, -100, -7]], pad_id=0, eos_id=1)
