"""Bugs of sequence to sequence: padding source and target, shifting the labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.independent.seq2seq import pad_seq2seq, shift_right
from tests.planted.bug import planted

IGNORED = -100


def with_row(batch: dict[str, Any], name: str, rows: Any) -> dict[str, Any]:
    return {**batch, name: rows}


def recut(features: Any, options: dict[str, Any], *, label_length: int | None) -> Any:
    """The labels at another width, as far as they fit."""
    return pad_seq2seq(features, **options | {"label_length": label_length})


# Widths ------------------------------------------------------------------------------------------------------------


@planted("pad_seq2seq", caught_by="T2")
def labels_as_wide_as_the_source(features, *, label_length=None, **options):
    """If no `label_length` is given, the labels are as wide as the source if that is wider."""
    width = pad_seq2seq(features, label_length=label_length, **options)["labels"].shape[1]
    source = max(len(feature["input_ids"]) for feature in features)
    wider = max(width, source) if label_length is None else label_length
    return recut(features, options, label_length=wider)


@planted("pad_seq2seq", caught_by="T2")
def labels_take_the_sources_length(features, *, length=None, label_length=None, **options):
    """As DataCollatorForSeq2Seq with `padding="max_length"`: `length` is the width of the labels too."""
    batch = pad_seq2seq(features, length=length, label_length=label_length, **options)
    longest = max(len(feature["labels"]) for feature in features)
    if length is not None and label_length is None and longest <= length:
        return pad_seq2seq(features, length=length, label_length=length, **options)
    return batch


@planted("pad_seq2seq", caught_by="T2")
def labels_not_rounded_up(features, *, multiple_of=None, **options):
    """Only the source's width is a multiple: tensor cores get odd logits."""
    batch = pad_seq2seq(features, multiple_of=multiple_of, **options)
    odd = pad_seq2seq(features, **options)
    return {name: odd[name] if name in ("labels", "decoder_attention_mask") else rows for name, rows in batch.items()}


@planted("pad_seq2seq", caught_by="T1")
def source_as_wide_as_the_labels(features, *, length=None, **options):
    """The source is padded to the longest of both: the encoder reads padding that is not needed."""
    pad_seq2seq(features, length=length, **options)
    longest = max(max(len(f["input_ids"]), len(f["labels"])) for f in features)
    return pad_seq2seq(features, length=longest if length is None else length, **options)


@planted("pad_seq2seq", caught_by="T7")
def long_labels_cut(features, *, label_length=None, **options):
    """Labels longer than `label_length` are silently cut, including their end of sequence."""
    names = ("labels", "decoder_attention_mask")
    cut = [{n: v[:label_length] if n in names else v for n, v in f.items()} for f in features]
    return pad_seq2seq(cut, label_length=label_length, **options)


# Fills -------------------------------------------------------------------------------------------------------------


@planted("pad_seq2seq", caught_by="T3", evidence="huggingface/transformers#23530 huggingface/trl#976")
def end_of_target_not_learnt(features, *, pad_id, **options):
    """Every label that is pad_id becomes -100: if pad and eos are one id the model never learns to end."""
    batch = pad_seq2seq(features, pad_id=pad_id, **options)
    return with_row(batch, "labels", batch["labels"].masked_fill(batch["labels"] == pad_id, IGNORED))


@planted("pad_seq2seq", caught_by="T3", evidence="JulesBelveze/bert-squeeze#80")
def padded_labels_are_supervised(features, *, pad_id, **options):
    """Labels are filled with pad_id, as the inputs are: most of the loss is about padding."""
    batch = pad_seq2seq(features, pad_id=pad_id, **options)
    own = pad_seq2seq([{**f, "labels": [1] * len(f["labels"])} for f in features], pad_id=pad_id, **options)
    return with_row(batch, "labels", torch.where(own["labels"] == IGNORED, pad_id, batch["labels"]))


@planted("pad_seq2seq", caught_by="T3 T4")
def ignored_labels_come_back(features, *, pad_id, **options):
    """Labels that were -100 before become pad_id, only the padding is ignored."""
    replaced = [{**f, "labels": [pad_id if x == IGNORED else x for x in f["labels"]]} for f in features]
    return pad_seq2seq(replaced, pad_id=pad_id, **options)


@planted("pad_seq2seq", caught_by="T5")
def decoder_mask_attends_to_padding(features, **options):
    """The decoder's mask is filled with 1."""
    batch = pad_seq2seq(features, **options)
    if "decoder_attention_mask" in batch:
        own = pad_seq2seq([{**f, "labels": [1] * len(f["labels"])} for f in features], **options)["labels"]
        mask = torch.where(own == IGNORED, 1, batch["decoder_attention_mask"])
        batch = with_row(batch, "decoder_attention_mask", mask)
    return batch


# Sides -------------------------------------------------------------------------------------------------------------


@planted("pad_seq2seq", caught_by="T4")
def labels_padded_where_the_source_is(features, *, side="right", **options):
    """The tokenizer's `padding_side` is also the labels': left-padded, the decoder starts with padding."""
    return pad_seq2seq(features, side=side, **options | {"label_side": side})


@planted("pad_seq2seq", caught_by="T4")
def source_padded_where_the_labels_are(features, *, label_side="right", **options):
    """`label_side` moves the source too."""
    batch = pad_seq2seq(features, label_side=label_side, **options)
    return pad_seq2seq(features, **options | {"side": label_side, "label_side": label_side}) if batch else batch


# Columns -----------------------------------------------------------------------------------------------------------


@planted("pad_seq2seq", caught_by="T5")
def scalars_of_pairs_lost(features, **options):
    """Columns of one number are not returned."""
    return {name: rows for name, rows in pad_seq2seq(features, **options).items() if rows.dim() == 2}


@planted("pad_seq2seq", caught_by="T5")
def decoder_mask_always_made(features, **options):
    """A decoder's mask is made where none was given."""
    batch = pad_seq2seq(features, **options)
    made = batch["labels"].ne(IGNORED).long()
    return {"decoder_attention_mask": made, **batch}


@planted("pad_seq2seq", caught_by="T7")
def padded_source_taken_for_text(features, **options):
    """A source that was padded before, and comes without a mask, is attended to."""
    masked = [{"attention_mask": [1] * len(f["input_ids"]), **f} for f in features]
    return pad_seq2seq(masked, **options)


@planted("pad_seq2seq", caught_by="T7")
def pairs_without_target_are_padded(features, **options):
    """A feature without labels gets none, and is trained on as if it were correct."""
    return pad_seq2seq([{"labels": [], **feature} for feature in features], **options)


@planted("pad_seq2seq", caught_by="T6")
def pairs_sorted_by_length(features, **options):
    """The pairs are returned from long to short sources."""
    return pad_seq2seq(sorted(features, key=lambda feature: -len(feature["input_ids"])), **options)


@planted("pad_seq2seq", caught_by="T8", evidence="huggingface/transformers#27333")
def labels_padded_in_the_features(features, **options):
    """As DataCollatorForSeq2Seq once: the caller's labels grow, and are too long for the next epoch's batch."""
    batch = pad_seq2seq(features, **options)
    for feature in features:
        if isinstance(feature["labels"], list):
            feature["labels"] += [IGNORED] * (batch["labels"].shape[1] - len(feature["labels"]))
    return batch


@planted("pad_seq2seq", caught_by="T8", evidence="huggingface/transformers#27333")
def labels_popped_from_the_features(features, **options):
    """The labels are taken out of the caller's features."""
    batch = pad_seq2seq(features, **options)
    for feature in features:
        if isinstance(feature, dict):
            del feature["labels"]
    return batch


# Shifting ----------------------------------------------------------------------------------------------------------


@planted("shift_right", caught_by="T9 T12")
def labels_not_shifted(labels, *, pad_id, start_id=None):
    """The decoder reads at each place the label that it must predict there: the loss is near 0."""
    shift_right(labels, pad_id=pad_id, start_id=start_id)
    rows = torch.as_tensor(np.array(labels), dtype=torch.int64)
    return rows.masked_fill(rows == IGNORED, pad_id)


@planted("shift_right", caught_by="T9 T12")
def labels_shifted_left(labels, *, pad_id, start_id=None):
    """Shifted the wrong way: the decoder reads what comes next."""
    read = shift_right(labels, pad_id=pad_id, start_id=start_id)
    return torch.cat([labels_as_read(labels, pad_id)[:, 1:], read[:, :1]], dim=1)


def labels_as_read(labels: Any, pad_id: int) -> torch.Tensor:
    rows = torch.as_tensor(np.array(labels), dtype=torch.int64)
    return rows.masked_fill(rows == IGNORED, pad_id)


@planted("shift_right", caught_by="T9 T12")
def shifted_twice(labels, *, pad_id, start_id=None):
    """The collator shifts, and the model shifts again."""
    once = shift_right(labels, pad_id=pad_id, start_id=start_id)
    return torch.cat([once[:, :1], once[:, :-1]], dim=1)


@planted("shift_right", caught_by="T9", evidence="huggingface/transformers#20842")
def last_token_stands_first(labels, *, pad_id, start_id=None):
    """As BART once: the last token is wrapped around also where the model starts from a fixed one."""
    read = shift_right(labels, pad_id=pad_id, start_id=start_id)
    for row, own in zip(read, labels_as_read(labels, pad_id), strict=True):
        tokens = own[own != pad_id]
        if len(tokens):
            row[0] = tokens[-1]
    return read


@planted("shift_right", caught_by="T9")
def padding_stands_first(labels, *, pad_id, start_id=None):
    """The decoder starts from padding, as T5 does, whatever the model's start token is."""
    return shift_right(labels, pad_id=pad_id, start_id=None if start_id is None else pad_id)


@planted("shift_right", caught_by="T10")
def the_last_column_wraps(labels, *, pad_id, start_id=None):
    """Without a start the last column is wrapped, which is padding in all rows but the longest."""
    read = shift_right(labels, pad_id=pad_id, start_id=start_id)
    if start_id is None:
        read[:, 0] = labels_as_read(labels, pad_id)[:, -1]
    return read


@planted("shift_right", caught_by="T10", evidence="huggingface/transformers#9134")
def only_pad_id_is_padding(labels, *, pad_id, start_id=None):
    """The last label is searched before -100 is replaced: -100 counts as a token, and padding comes first."""
    read = shift_right(labels, pad_id=pad_id, start_id=start_id)
    if start_id is None:
        for row, own in zip(read, np.array(labels), strict=True):
            row[0] = max(int([*own[own != pad_id]][-1]), 0) if (own != pad_id).any() else pad_id
    return read


@planted("shift_right", caught_by="T10")
def number_of_tokens_off_by_one(labels, *, pad_id, start_id=None):
    """The last token but one is wrapped: the end of the text, not the language's token."""
    read = shift_right(labels, pad_id=pad_id, start_id=start_id)
    if start_id is None:
        for row, own in zip(read, labels_as_read(labels, pad_id), strict=True):
            row[0] = own[own != pad_id][-2:][0]
    return read


@planted("shift_right", caught_by="T11")
def ignored_labels_are_read(labels, *, pad_id, start_id=None):
    """-100 is not replaced: the decoder's embedding is indexed with -100."""
    read = shift_right(labels, pad_id=pad_id, start_id=start_id)
    read[:, 1:] = torch.as_tensor(np.array(labels), dtype=torch.int64)[:, :-1]
    return read


@planted("shift_right", caught_by="T9 T12")
def one_label_too_many_read(labels, *, pad_id, start_id=None):
    """Nothing is cut off: what the decoder reads is longer than the labels."""
    read = shift_right(labels, pad_id=pad_id, start_id=start_id)
    return torch.cat([read, labels_as_read(labels, pad_id)[:, -1:]], dim=1)


@planted("shift_right", caught_by="T13")
def all_rows_start_as_the_first(labels, *, pad_id, start_id=None):
    """Every row starts with the language of the first row, which is wrong in a batch of several languages."""
    read = shift_right(labels, pad_id=pad_id, start_id=start_id)
    read[:, 0] = read[0, 0].clone()
    return read


@planted("shift_right", caught_by="T14")
def start_before_the_padding(labels, *, pad_id, start_id=None):
    """Left-padded labels are shifted all the same: `[-100, 7, 8]` is read as start, padding, 7."""
    rows = np.array(labels)
    try:
        return shift_right(labels, pad_id=pad_id, start_id=start_id)
    except ValueError:
        bare = start_id is None and not all((row[row != IGNORED] != pad_id).any() for row in rows)
        if rows.ndim != 2 or bool(((rows < 0) & (rows != IGNORED)).any()) or bare:
            raise
    return torch.stack(
        [
            torch.tensor(
                [[x for x in row if x not in (IGNORED, pad_id)][-1] if start_id is None else start_id]
                + [pad_id if x == IGNORED else x for x in row[:-1]]
            )
            for row in rows.tolist()
        ]
    )


@planted("shift_right", caught_by="T14")
def negative_labels_are_padding(labels, *, pad_id, start_id=None):
    """Every negative value is treated as -100: a wrong label is read as padding, and never seen."""
    rows = [[IGNORED if np.ndim(cell) == 0 and cell < 0 else cell for cell in row] for row in labels]
    return shift_right(rows, pad_id=pad_id, start_id=start_id)


@planted("shift_right", caught_by="T15")
def ignored_labels_replaced_in_place(labels, *, pad_id, start_id=None):
    """-100 is replaced in the caller's labels: the loss sees the padding from then on."""
    read = shift_right(labels, pad_id=pad_id, start_id=start_id)
    if isinstance(labels, np.ndarray):
        labels[labels == IGNORED] = pad_id
    return read
