"""Chunks, labels and weights by hand and against the course's code, and the batched version."""

from typing import Any

import numpy as np
import pytest
import torch

from touchstone.stages import causal_labels, chunk_documents, chunk_documents_batch, key_token_weights
from touchstone.stages.ragged import Ragged

DOCUMENTS = [[1, 2, 3, 4, 5], [], [6], [7, 8, 9, 10]]
EOS = 0


def test_documents_are_cut_separately_and_their_remainder_is_dropped_or_kept() -> None:
    assert chunk_documents(DOCUMENTS, length=2) == [[1, 2], [3, 4], [7, 8], [9, 10]]
    assert chunk_documents(DOCUMENTS, length=2, remainder="keep") == [[1, 2], [3, 4], [5], [6], [7, 8], [9, 10]]


def test_joined_documents_end_with_the_end_of_text_and_only_the_last_remainder_is_dropped() -> None:
    expected = [[1, 2, 3, 4], [5, EOS, EOS, 6], [EOS, 7, 8, 9]]
    assert chunk_documents(DOCUMENTS, length=4, remainder="join", eos_id=EOS) == expected


@pytest.mark.parametrize("documents", [[], [[]], [[1], []]])
def test_documents_shorter_than_a_chunk_give_no_chunk(documents: list[list[int]]) -> None:
    assert (
        [] == chunk_documents(documents, length=9) == chunk_documents(documents, length=9, remainder="join", eos_id=0)
    )
    assert chunk_documents(documents, length=9, remainder="keep") == [d for d in documents if d]


def test_chunks_equal_those_of_the_course() -> None:
    """The course uses `return_overflowing_tokens` and `if length == context_length` (chapter 7, section 6)."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {str(number): number for number in range(100)}
    whole = Tokenizer(models.WordLevel(vocabulary, unk_token="0"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=whole)  # type: ignore[no-untyped-call]
    random = np.random.default_rng(5)
    texts = [" ".join(map(str, random.integers(1, 100, size=size))) for size in (0, 1, 7, 8, 9, 40)]
    outputs = tokenizer(texts, truncation=True, max_length=8, return_overflowing_tokens=True, return_length=True)
    expected = [ids for length, ids in zip(outputs["length"], outputs["input_ids"], strict=True) if length == 8]

    assert chunk_documents(tokenizer(texts)["input_ids"], length=8) == expected


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"length": 0}, "length is 0"),
    ({"remainder": "pad"}, "remainder 'pad' is unknown: use one of drop, keep, join"),
    ({"remainder": "join"}, "eos_id is None: pass it"),
    ({"eos_id": 0}, "eos_id is 0, but remainder='drop' does not use it"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_chunk_documents_and_its_batched_version_refuse_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chunk_documents(DOCUMENTS, **{"length": 2} | options)
    with pytest.raises(ValueError, match=message):
        chunk_documents_batch(Ragged.from_lists(DOCUMENTS), **{"length": 2} | options)


@pytest.mark.parametrize("remainder", ["drop", "keep", "join"])
@pytest.mark.parametrize("length", [1, 3, 8, 1000])
def test_chunk_documents_batch_equals_chunk_documents_on_random_documents(remainder: str, length: int) -> None:
    random = np.random.default_rng(length)
    sizes = random.integers(0, 30, size=40) * random.integers(0, 2, size=40)
    documents = [random.integers(1, 100, size=size).tolist() for size in sizes]
    options: dict[str, Any] = {"length": length, "remainder": remainder}
    options |= {"eos_id": EOS} if remainder == "join" else {}
    ragged = Ragged.from_lists(documents)

    assert chunk_documents(documents, **options) == chunk_documents_batch(ragged, **options).to_lists()

    chunk_documents_batch(ragged, **options).values[:] = -7
    assert ragged.to_lists() == documents


# Labels ---------------------------------------------------------------------------------------------------------------


def test_causal_labels_depend_on_the_mask_and_not_on_the_pad_id() -> None:
    ids, mask = [[5, EOS, 6, EOS], [7, EOS, EOS, EOS]], [[1, 1, 1, 1], [1, 1, 0, 0]]
    labels = causal_labels(ids, attention_mask=mask)
    assert labels.tolist() == [[5, EOS, 6, EOS], [7, EOS, -100, -100]]
    assert labels.dtype == np.int64


def test_causal_labels_accepts_tensors() -> None:
    ids, mask = torch.tensor([[5, 6]]), torch.tensor([[0, 1]])
    assert causal_labels(ids, attention_mask=mask).tolist() == [[-100, 6]]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([[1, 2]], [[1]], r"attention_mask has shape \(1, 1\), input_ids \(1, 2\)"),
        ([[1, 2], [3, 4]], [[1, 1], [1, 2]], r"attention_mask\[1\]\[1\] is 2"),
        ([[1, 2], [3]], [[1, 1], [1]], r"input_ids is not \(B, T\): row 1 has shape \(1,\), row 0 has \(2,\)"),
        ([1, 2], [1, 1], r"input_ids is not \(B, T\): row 0 has shape \(\)"),
    ],
)
def test_causal_labels_refuses_an_invalid_batch(ids: Any, mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        causal_labels(ids, attention_mask=mask)


# Weights --------------------------------------------------------------------------------------------------------------


def test_key_token_weights_adds_one_for_each_key_token() -> None:
    ids = [[1, 2, 3, 2], [4, 4, 4, 4], [9, 8, 7, 2]]
    assert key_token_weights(ids, key_ids=[2]).tolist() == [3.0, 1.0, 2.0]
    assert key_token_weights(ids, key_ids=[2, 3, 9, 2], alpha=0.5).tolist() == [2.0, 0.5, 1.5]
    assert key_token_weights(ids, key_ids=[]).tolist() == [1.0, 1.0, 1.0]


def test_key_token_weights_equal_those_of_the_courses_loss() -> None:
    """The course's code is `keytoken_weighted_loss` (chapter 7, section 6); all key ids differ here."""
    inputs = torch.from_numpy(np.random.default_rng(1).integers(0, 20, size=(8, 30)))
    keys = [3, 5, 8]
    expected = 2.0 * (1.0 + torch.stack([(inputs == key).float() for key in keys]).sum(axis=[0, 2]))  # type: ignore[call-overload]
    assert expected.tolist() == key_token_weights(inputs.numpy(), key_ids=keys, alpha=2.0).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": -0.5}, "alpha is -0.5"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"key_ids": [4, -1]}, r"key_ids\[1\] is -1"),
    ],
)
def test_key_token_weights_refuses_invalid_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        key_token_weights([[1, 2]], **{"key_ids": [4]} | change)
