"""Bugs of padding a batch."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch

from tests.independent.collation import pad_batch
from tests.planted.bug import planted

IGNORED = -100


def lengths(features: Any) -> list[int]:
    """How many tokens each feature has."""
    return [max((len(v) for v in feature.values() if np.ndim(v)), default=0) for feature in features]


def padded(features: Any, width: int, side: str) -> list[slice]:
    """Return where the padding of each row is."""
    return [slice(n, None) if side == "right" else slice(0, width - n) for n in lengths(features)]


def with_masks(features: Any) -> Any:
    """Return the features, with a mask of ones if they have no mask."""
    if len(features) == 0 or "attention_mask" in features[0]:
        return features
    return [{**f, "attention_mask": [1] * n} for f, n in zip(features, lengths(features), strict=True)]


# The attention mask ------------------------------------------------------------------------------------------------


@planted("pad_batch", caught_by="P7", evidence="huggingface/transformers#9304")
def padding_taken_for_text(features, **options):
    """Input that was padded before, and comes without a mask, is attended to: the mask is all ones."""
    return pad_batch(with_masks(features), **options)


@planted("pad_batch", caught_by="P2 P9", evidence="NVIDIA-NeMo/Automodel#3704")
def mask_all_ones(features, **options):
    """Padding is attended to like text."""
    batch = pad_batch(features, **options)
    return {name: torch.ones_like(rows) if name == "attention_mask" else rows for name, rows in batch.items()}


@planted("pad_batch", caught_by="P2")
def mask_on_the_wrong_side(features, *, side="right", **options):
    """With left padding the mask still has its zeros at the right."""
    batch = pad_batch(features, side=side, **options)
    if side == "left" and "attention_mask" in batch:
        batch["attention_mask"] = batch["attention_mask"].flip(-1)
    return batch


@planted("pad_batch", caught_by="P2", evidence="hpcaitech/ColossalAI#4193 apple/ml-fastvlm#68")
def mask_read_off_the_ids(features, *, pad_id, **options):
    """The mask is `input_ids != pad_id`: text that contains this id (if pad and eos are one) is hidden."""
    batch = pad_batch(features, pad_id=pad_id, **options)
    if "input_ids" in batch:
        batch["attention_mask"] = (batch["input_ids"] != pad_id).long()
    return batch


@planted("pad_batch", caught_by="P2", evidence="huggingface/transformers#13914 huggingface/transformers#8915")
def own_mask_forgotten(features, **options):
    """The features' own mask is replaced by ones: what they had hidden is attended to."""
    features = [
        {name: [1] * len(value) if name == "attention_mask" else value for name, value in feature.items()}
        for feature in features
    ]
    return pad_batch(features, **options)


# Labels ------------------------------------------------------------------------------------------------------------


@planted("pad_batch", caught_by="P3", evidence="huggingface/transformers#23530 huggingface/trl#976")
def end_of_sequence_not_learnt(features, *, pad_id, **options):
    """Every label whose token is pad_id becomes -100, including the real end of the sequence if pad and eos are one."""
    batch = pad_batch(features, pad_id=pad_id, **options)
    if "labels" in batch and "input_ids" in batch and batch["labels"].shape == batch["input_ids"].shape:
        batch["labels"][batch["input_ids"] == pad_id] = IGNORED
    return batch


def refill_labels(features: Any, options: dict[str, Any], fill: int) -> Any:
    batch = pad_batch(features, **options)
    if "labels" in batch and batch["labels"].ndim == 2:
        where = padded(features, batch["labels"].shape[1], options.get("side", "right"))
        for row, padding in zip(batch["labels"], where, strict=True):
            row[padding] = fill
    return batch


@planted("pad_batch", caught_by="P3 P9")
def labels_filled_with_zero(features, **options):
    """Padded labels are 0, the id of a real label."""
    return refill_labels(features, options, 0)


@planted("pad_batch", caught_by="P3")
def labels_filled_with_pad_id(features, **options):
    """Padded labels are pad_id: the model learns to predict padding."""
    return refill_labels(features, options, options["pad_id"])


@planted("pad_batch", caught_by="P3 P4", evidence="huggingface/trl#4497")
def labels_always_padded_right(features, *, side="right", **options):
    """With left padding the labels are still padded on the right, so that they belong to other tokens."""
    batch = pad_batch(features, side=side, **options)
    if "labels" in batch:
        batch["labels"] = pad_batch(with_masks(features), side="right", **options)["labels"]
    return batch


# Width -------------------------------------------------------------------------------------------------------------


@planted("pad_batch", caught_by="P1", evidence="huggingface/transformers#12999")
def multiple_forgotten(features, *, multiple_of=None, **options):
    """`multiple_of` is accepted and not used."""
    return pad_batch(features, **options)


@planted("pad_batch", caught_by="P1")
def multiple_forgotten_with_length(features, *, length=None, multiple_of=None, **options):
    """If a length is given, it is not rounded up."""
    return pad_batch(features, length=length, multiple_of=multiple_of if length is None else None, **options)


@planted("pad_batch", caught_by="P1")
def one_block_too_many(features, *, multiple_of=None, length=None, **options):
    """(T // m + 1) * m: a width that is a multiple already grows by another."""
    batch = pad_batch(features, multiple_of=multiple_of, length=length, **options)
    longest = max(lengths(features)) if length is None else length
    if multiple_of and longest % multiple_of == 0:
        return pad_batch(features, length=longest + multiple_of, **options)
    return batch


@planted("pad_batch", caught_by="P1")
def always_a_multiple_of_eight(features, *, multiple_of=None, **options):
    """The width is always rounded up to a multiple of 8, as suits tensor cores, even without `multiple_of`."""
    return pad_batch(features, multiple_of=multiple_of or 8, **options)


@planted("pad_batch", caught_by="P7", evidence="huggingface/transformers#18050")
def long_features_cut(features, *, length=None, **options):
    """A feature longer than `length` is silently cut."""
    cut = [{n: v[:length] if np.ndim(v) else v for n, v in feature.items()} for feature in features]
    return pad_batch(cut, length=length, **options)


# Columns -----------------------------------------------------------------------------------------------------------


@planted("pad_batch", caught_by="P5", evidence="huggingface/transformers#12998")
def only_ids_and_labels_returned(features, **options):
    """Every column but two is lost, the attention mask among them."""
    batch = pad_batch(features, **options)
    return {name: rows for name, rows in batch.items() if name in ("input_ids", "labels")}


@planted("pad_batch", caught_by="P5")
def scalars_lost(features, **options):
    """Columns of one number a feature are not returned."""
    return {name: rows for name, rows in pad_batch(features, **options).items() if rows.ndim == 2}


@planted("pad_batch", caught_by="P5")
def padding_is_not_special(features, **options):
    """`special_tokens_mask` is filled with 0: padding may be chosen for masking."""
    batch = pad_batch(features, **options)
    if "special_tokens_mask" in batch:
        rows = batch["special_tokens_mask"]
        for row, padding in zip(rows, padded(features, rows.shape[1], options.get("side", "right")), strict=True):
            row[padding] = 0
    return batch


@planted("pad_batch", caught_by="P4 P5")
def no_word_is_word_zero(features, **options):
    """`None` among the word ids becomes 0, which is a word."""
    zeroed = [
        {n: [0 if x is None else x for x in v] if n == "word_ids" else v for n, v in feature.items()}
        for feature in features
    ]
    return pad_batch(zeroed, **options)


@planted("pad_batch", caught_by="P7")
def columns_of_the_first_feature(features, **options):
    """Columns that the first feature lacks are dropped from the others."""
    if not features:
        return pad_batch(features, **options)
    return pad_batch([{name: f[name] for name in features[0] if name in f} for f in features], **options)


@planted("pad_batch", caught_by="P7")
def unknown_columns_filled_with_zero(features, **options):
    """A ragged column without a known fill is filled with 0."""
    batch = pad_batch([{n: v for n, v in f.items() if n in KNOWN or not np.ndim(v)} for f in features], **options)
    for name in features[0]:
        if name not in batch:
            alike = [{"token_type_ids": f[name], "attention_mask": [1] * len(f[name])} for f in features]
            batch[name] = pad_batch(alike, **options)["token_type_ids"]
    return batch


KNOWN = ("input_ids", "labels", "attention_mask", "token_type_ids", "special_tokens_mask", "word_ids")


# Rows --------------------------------------------------------------------------------------------------------------


@planted("pad_batch", caught_by="P6")
def sorted_by_length(features, **options):
    """The rows are returned from long to short, as packed sequences once required."""
    return pad_batch(sorted(features, key=lambda feature: -lengths([feature])[0]), **options)


@planted("pad_batch", caught_by="P6")
def every_row_shifted_by_the_longest(features, *, side="right", **options):
    """One row's padding moves the others: all rows are aligned to the end of the longest, whatever the side."""
    pad_batch(features, side=side, **options)  # refuses what is invalid
    return pad_batch(with_masks(features), side="left", **options)


# Manners -----------------------------------------------------------------------------------------------------------


@planted("pad_batch", caught_by="P8", evidence="huggingface/transformers#27333")
def features_padded_in_place(features, **options):
    """The caller's labels grow to the width of this batch, and are too long for the next one."""
    batch = pad_batch(features, **options)
    for feature in features:
        labels = feature.get("labels")
        if isinstance(labels, list):
            labels.extend([IGNORED] * (batch["labels"].shape[1] - len(labels)))
    return batch


@planted("pad_batch", caught_by="P8", evidence="course/3.mdx:487")
def word_ids_popped(features, **options):
    """The word ids are taken out of the caller's features: a second epoch finds none."""
    batch = pad_batch(features, **options)
    for feature in features:
        if isinstance(feature, dict):
            feature.pop("word_ids", None)
    return batch


@planted("pad_batch", caught_by="P8")
def labels_are_the_inputs(features, **options):
    """Labels that equal the inputs are the same array: what masks one masks the other."""
    batch = pad_batch(features, **options)
    if "labels" in batch and "input_ids" in batch and torch.equal(batch["labels"], batch["input_ids"]):
        batch["labels"] = batch["input_ids"]
    return batch


@planted("pad_batch", caught_by="P8")
def rows_share_memory(features, **options):
    """Equal rows are one row seen twice."""
    batch = pad_batch(features, **options)
    for name, rows in batch.items():
        if len(rows) > 1 and rows.ndim == 2 and bool((rows == rows[0]).all()):
            batch[name] = rows[:1].expand(len(rows), -1)
    return batch


@planted("pad_batch", caught_by="P7")
def nothing_gives_nothing(features, **options):
    """No features give a batch without columns."""
    return pad_batch(features, **options) if features else {}


@planted("pad_batch", caught_by="P7")
def unknown_side_is_right(features, *, side="right", **options):
    """Any word but `left` pads at the right."""
    return pad_batch(features, side="left" if side == "left" else "right", **options)


@planted("pad_batch", caught_by="P8")
def lists_are_added_to_whatever_comes(features, *, pad_id, **options):
    """`ids + [pad_id]`, as the tokenizers' own `pad` writes it, raises for tuples."""
    for feature in features:
        operator.add(feature.get("input_ids", []), [pad_id])
    return pad_batch(features, pad_id=pad_id, **options)
