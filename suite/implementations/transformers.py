"""transformers 5.23.0 (PyPI, `transformers`): what the installed package implements of the contract.

    pytest suite/properties --implementation touchstone.suite.implementations.transformers

It adapts how arguments are passed and never changes a result, so a failing check shows where transformers (or seqeval,
as transformers' example run_ner calls it) differs from docs/contract.md. Alignment and chunking are in transformers'
example scripts but not in the package, so they are not offered.

What a collator cannot express is left out by `supports`:

* `pad_batch` gets only columns that a model or the collator takes, as `Trainer` does by default with
  `remove_unused_columns` (the collator raises on `word_ids`, and on a number called `label`).
* `mask_tokens`: the collator takes one seed and then keeps drawing, as in a `Trainer`. It has neither epoch nor
  example. Random tokens come from all ids of the tokenizer, which has as many ids as the largest one requires.
* `mask_tokens` with `word_ids`: the collator derives words from character offsets, so the adapter makes up a text with
  a blank between words. (Without blanks, as in Chinese, in `state-of-the-art`, or in the offsets of tokenizers that
  include the blank, the collator treats all of it as one word. Word ids cannot express this, so no check shows it.)
* `causal_labels`: the collator recognises padding by its id. It gets the id found where the mask is 0, as in the
  course (`tokenizer.pad_token = tokenizer.eos_token`), or an unused id if nothing is padded.
* `pad_seq2seq`: the collator has one length and one side for source and target. It raises on
  `decoder_attention_mask`.
* `shift_right` is not public, but it is what a model does with labels: Marian's function (BART and T5 do the same) with
  a `start_id`, mBART's without one.
* `pack`: the collator takes ids and labels (if there are no labels it derives them from the ids; the adapter removes
  these), and does not pad. Its one packed row of (1, T) is returned as (T,), and `cu_seq_lens_q` as `offsets`.
* The adapter itself answers empty input (a sequence without tokens, sentences without labels): the collator for whole
  words raises an IndexError on it and seqeval a ZeroDivisionError, which would hide all other results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from seqeval.metrics import accuracy_score, classification_report
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithFlattening,
    PreTrainedTokenizerFast,
)
from transformers.models.marian import modeling_marian
from transformers.models.mbart import modeling_mbart

COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "special_tokens_mask", "labels")
"""The columns that the `forward` of a token classifier takes or that the tokenizer pads."""


def has_columns_of_models(features: Sequence[Mapping[str, Any]]) -> bool:
    return all(name in COLUMNS for feature in features for name in feature)


supports = {
    "score_entities": {"scheme": ["IOB2"], "mode": ["lenient"]},
    "pad_batch": {"features": has_columns_of_models},
    "pad_seq2seq": {
        "features": has_columns_of_models,
        "side": ["right"],
        "length": [None],
        "label_length": [None],
        "label_side": ["right"],
    },
    "pack": {
        "features": lambda features: all(name in ("input_ids", "labels") for each in features for name in each),
        "multiple_of": [None],
    },
}
choices = {"first_label": "ignored"}

__all__ = ["causal_labels", "mask_tokens", "pack", "pad_batch", "pad_seq2seq", "score_entities", "shift_right"]


@lru_cache(maxsize=256)
def tokenizer_of(size: int, *, pad_id: int, mask_id: int | None = None, side: str = "right") -> PreTrainedTokenizerFast:
    """Return a tokenizer with `size` ids, which include these two."""
    model = WordLevel({f"token-{id}": id for id in range(size)}, unk_token=None)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer(model),
        pad_token=f"token-{pad_id}",
        mask_token=None if mask_id is None else f"token-{mask_id}",
        padding_side=side,
    )
    return tokenizer


def pad_batch(
    features: Sequence[Mapping[str, Any]],
    *,
    pad_id: int,
    side: str = "right",
    multiple_of: int | None = None,
    length: int | None = None,
) -> Mapping[str, Any]:
    """Call `DataCollatorForTokenClassification`, as the course does for token classification."""
    collator = DataCollatorForTokenClassification(
        tokenizer_of(pad_id + 1, pad_id=pad_id, side=side),
        padding=True if length is None else "max_length",
        max_length=length,
        pad_to_multiple_of=multiple_of,
    )
    handed = [{name: integers(feature[name]) for name in COLUMNS if name in feature} for feature in features]
    return dict(collator(handed))


def integers(values: Sequence[int]) -> list[int]:
    """Return a list of Python integers, which the tokenizers can pad."""
    return [int(value) for value in values]


def mask_tokens(
    input_ids: Sequence[int],
    *,
    special: Sequence[bool],
    mask_id: int,
    vocabulary: Sequence[int],
    rate: float = 0.15,
    replacement: Sequence[float] = (0.8, 0.1, 0.1),
    word_ids: Sequence[int | None] | None = None,
    seed: int,
    epoch: int,
    example: int,
) -> tuple[Sequence[int], Sequence[int]]:
    """Call `DataCollatorForLanguageModeling`, in its whole-word mode if there are `word_ids`.

    Raises:
        ValueError: the collator cannot express it: shares that do not sum to 1, or an empty vocabulary.
        NotImplementedError: a token has no word and is not special, which no offsets express.
    """
    mask, random, unchanged = replacement  # the collator takes two; the third is the rest
    if abs(mask + random + unchanged - 1) > 1e-9 or len(vocabulary) == 0:
        raise ValueError(
            f"the collator cannot express replacement {replacement} with {len(vocabulary)} ids in the vocabulary"
        )
    size = 1 + max(mask_id, *vocabulary, *input_ids)
    collator = collator_of(int(size), mask_id, rate, mask, random, word_ids is not None, seed)
    if len(input_ids) == len(special) == 0 and not word_ids:
        return [], []
    feature: dict[str, Any] = {
        "input_ids": integers(input_ids),
        "attention_mask": [1] * len(input_ids),
        "special_tokens_mask": [int(flag) for flag in special],
    }
    if word_ids is not None:
        if any(word is None and not flag for word, flag in zip(word_ids, special, strict=False)):
            raise NotImplementedError("a token without a word that is not special")
        feature["offset_mapping"] = offsets_of(word_ids)
    batch = collator([feature])
    return batch["input_ids"][0], batch["labels"][0]


@lru_cache(maxsize=4096)
def collator_of(
    size: int, mask_id: int, rate: float, mask: float, random: float, whole_words: bool, seed: int
) -> DataCollatorForLanguageModeling:
    """Return the collator of these settings. All calls share it, as all batches of a `Trainer` do."""
    return DataCollatorForLanguageModeling(
        tokenizer_of(size, pad_id=0, mask_id=mask_id),
        whole_word_mask=whole_words,
        mlm_probability=rate,
        mask_replace_prob=mask,
        random_replace_prob=random,
        seed=seed,
    )


def offsets_of(word_ids: Sequence[int | None]) -> list[tuple[int, int]]:
    """Return the characters of each token in a text with one character per token and a blank between words.

    Tokens without a word have the empty offset (0, 0) that tokenizers give to special tokens.
    """
    offsets: list[tuple[int, int]] = []
    position, previous = 0, None
    for word in word_ids:
        if word is None:
            offsets.append((0, 0))
        else:
            position += previous is not None and word != previous
            offsets.append((position, position + 1))
            position += 1
            previous = word
    return offsets


def pad_seq2seq(
    features: Sequence[Mapping[str, Any]],
    *,
    pad_id: int,
    side: str = "right",
    multiple_of: int | None = None,
    length: int | None = None,
    label_length: int | None = None,
    label_side: str = "right",
) -> Mapping[str, Any]:
    """Call `DataCollatorForSeq2Seq`, as the course does for translation and summarization."""
    collator = DataCollatorForSeq2Seq(
        tokenizer_of(pad_id + 1, pad_id=pad_id, side=side),
        padding=True if length is None else "max_length",
        max_length=length,
        pad_to_multiple_of=multiple_of,
    )
    handed = [{name: integers(feature[name]) for name in COLUMNS if name in feature} for feature in features]
    return dict(collator(handed))


def shift_right(labels: Sequence[Sequence[int]], *, pad_id: int, start_id: int | None = None) -> Any:
    """Call the function behind `prepare_decoder_input_ids_from_labels` of Marian or mBART."""
    rows = torch.tensor(np.asarray(labels))
    if start_id is None:
        return modeling_mbart.shift_tokens_right(rows, pad_id)
    return modeling_marian.shift_tokens_right(rows, pad_id, start_id)


def causal_labels(
    input_ids: Sequence[Sequence[int]], *, attention_mask: Sequence[Sequence[int]]
) -> Sequence[Sequence[int]]:
    """Call `DataCollatorForLanguageModeling` with `mlm=False`, as the course does for causal language modelling.

    Raises:
        ValueError: a mask of another shape, or with values other than 0 and 1.
    """
    ids, mask = np.asarray(input_ids, dtype=np.int64), np.asarray(attention_mask, dtype=np.int64)
    if ids.shape != mask.shape or not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"a mask of shape {mask.shape} with values {np.unique(mask).tolist()} for ids of shape {ids.shape}"
        )
    padding = ids[mask == 0]
    pad_id = int(padding[0]) if padding.size else int(ids.max(initial=0)) + 1
    collator = DataCollatorForLanguageModeling(tokenizer_of(pad_id + 1, pad_id=pad_id), mlm=False)
    features = [
        {"input_ids": integers(row), "attention_mask": integers(flags)} for row, flags in zip(ids, mask, strict=True)
    ]
    labels: Sequence[Sequence[int]] = collator(features)["labels"]
    return labels


def pack(
    features: Sequence[Mapping[str, Any]], *, pad_id: int, first_position: int = 0, multiple_of: int | None = None
) -> Mapping[str, Any]:
    """Call `DataCollatorWithFlattening`, without `pad_id` and `multiple_of`."""
    collator = DataCollatorWithFlattening(  # type: ignore[no-untyped-call]
        return_tensors="np", return_flash_attn_kwargs=True, position_ids_start=first_position
    )
    handed = [
        {name: integers(feature[name]) for name in ("input_ids", "labels") if name in feature} for feature in features
    ]
    batch = collator(handed)
    names = ("input_ids", "position_ids", *(("labels",) if "labels" in handed[0] else ()))
    return {**{name: batch[name][0] for name in names}, "offsets": batch["cu_seq_lens_q"]}


def score_entities(
    predictions: Sequence[Sequence[int]],
    *,
    references: Sequence[Sequence[int]],
    names: Sequence[str],
    scheme: str = "IOB2",
    mode: str = "strict",
) -> dict[str, Any]:
    """Compute `evaluate`'s seqeval metric as run_ner and the course do, without scheme and mode."""
    pairs = [
        [(guess, gold) for guess, gold in zip(row, golds, strict=False) if gold != -100]
        for row, golds in zip(predictions, references, strict=False)
    ]
    guesses = [[names[guess] for guess, _ in row] for row in pairs]
    golds = [[names[gold] for _, gold in row] for row in pairs]
    if not any(golds):
        nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 0}
        return {**nothing, "accuracy": 0.0, "types": {}, "signature": SIGNATURE}
    report = classification_report(golds, guesses, output_dict=True)
    overall = {key: report.pop(key) for key in ("micro avg", "macro avg", "weighted avg")}["micro avg"]
    return {
        **contract_keys(overall),
        "accuracy": accuracy_score(golds, guesses),
        "types": {kind: contract_keys(scores) for kind, scores in report.items()},
        "signature": SIGNATURE,
    }


SIGNATURE = f"seqeval|version:{version('seqeval')}"


def contract_keys(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the scores of a seqeval report to those of the contract."""
    return {
        "precision": scores["precision"],
        "recall": scores["recall"],
        "f1": scores["f1-score"],
        "number": scores["support"],
    }
