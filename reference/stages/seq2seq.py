"""Prepare pairs of source and target for an encoder and a decoder, and clean the token ids that come back.

Source and target are padded to different widths. The decoder predicts label t from labels 0 to t - 1, so its input is
the labels shifted right by one place, after a start token. Ids that go back to a tokenizer must be cleaned first: it
cannot decode -100, which labels hold, and so do predictions gathered over batches of different widths; and whatever
follows the end of sequence is not part of the answer.

Sources: Marian, BART and T5 start from a fixed token (`decoder_start_token_id`); mBART (Liu et al. 2020) ends a target
with the token of its language and starts the decoder from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from touchstone.stages.collation import FILLS, check_side, pad_batch, pad_rows, read_rows
from touchstone.stages.ragged import IGNORED, Array

TARGET_FILLS = {"labels": FILLS["labels"], "decoder_attention_mask": 0}
"""The target's columns and their fill values. All other columns belong to the source."""


def pad_seq2seq(
    features: Sequence[Mapping[str, Any]],
    *,
    pad_id: int,
    side: str = "right",
    multiple_of: int | None = None,
    length: int | None = None,
    label_length: int | None = None,
    label_side: str = "right",
) -> dict[str, Array]:
    """Pad B pairs of source and target, each to its own width, and stack them into arrays.

    >>> batch = pad_seq2seq([{"input_ids": [5, 6, 7], "labels": [8, 2]}, {"input_ids": [9], "labels": [2]}], pad_id=1)
    >>> batch["input_ids"].tolist()
    [[5, 6, 7], [9, 1, 1]]
    >>> batch["labels"].tolist()
    [[8, 2], [2, -100]]

    Args:
        features: B mappings of column to T_i integers, or to one integer, as `pad_batch` takes them. `labels` and
            `decoder_attention_mask` (optional) may have another length than the source's columns.
        pad_id: the fill of `input_ids`. Labels are filled with -100, the decoder's mask with 0.
        side, label_side: the side of the source's and of the target's padding, `right` or `left`.
        multiple_of: round both widths up to a multiple of this.
        length, label_length: the widths, instead of the longest source and the longest labels.

    Returns:
        Column to (B, S) int64 for the source, (B, T) for the target, (B,) for columns of single integers.
        `attention_mask` is added if it is missing.

    Raises:
        ValueError: as in `pad_batch`; a feature without `labels`, labels longer than `label_length`, a column of the
            source with another length than its `input_ids`.
    """
    check_side(label_side, argument="label_side")
    for index, feature in enumerate(features):
        if "labels" not in feature:
            raise ValueError(f"features[{index}] has no labels, only {sorted(feature)}: tokenize the target too")
        if np.ndim(feature["labels"]) == 0:
            raise ValueError(f"features[{index}]['labels'] is {feature['labels']!r}: it must be a sequence")
    sources = [{name: value for name, value in f.items() if name not in TARGET_FILLS} for f in features]
    targets = [{name: value for name, value in f.items() if name in TARGET_FILLS} for f in features]
    source = pad_batch(sources, pad_id=pad_id, side=side, multiple_of=multiple_of, length=length)
    target = pad_rows(
        read_rows(targets),
        fills=TARGET_FILLS,
        side=label_side,
        multiple_of=multiple_of,
        length=label_length,
        argument="label_length",
    )
    return source | target


def shift_right(labels: Sequence[Sequence[int]] | Array, *, pad_id: int, start_id: int | None = None) -> Array:
    """Return the decoder's input for these labels: at each place, the label before it.

    >>> shift_right([[7, 8, 2], [9, 2, -100]], pad_id=1, start_id=1).tolist()
    [[1, 7, 8], [1, 9, 2]]
    >>> shift_right([[7, 2, 50], [2, 50, -100]], pad_id=1).tolist()  # mBART: 50 is the target's language
    [[50, 7, 2], [50, 2, 50]]

    Args:
        labels: (B, T), right-padded with -100 or `pad_id`.
        pad_id: replaces -100.
        start_id: the first token of every row (Marian, BART, T5). None: the first token is the row's last label that
            is neither -100 nor `pad_id`, the token of the target's language (mBART).

    Returns:
        (B, T) int64 without negative values. The last column of `labels` is dropped.

    Raises:
        ValueError: another shape, a negative label other than -100, labels padded on the left; without `start_id`, a
            row of padding only.
    """
    array = np.asarray(labels)
    if array.ndim != 2 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"labels have shape {array.shape} and type {array.dtype}: pass (B, T) integers")
    _refuse_negative(array)
    if start_id is not None and start_id < 0:
        raise ValueError(f"start_id is {start_id}: it must be a token id")
    tokens = np.where(array == IGNORED, pad_id, array).astype(np.int64)
    real = tokens != pad_id
    if tokens.shape[1]:
        late = np.flatnonzero(real.any(axis=1) & ~real[:, 0])
        if late.size:
            raise ValueError(
                f"labels[{late[0]}] begins with padding ({array[late[0], 0]}): the start token would stand before the "
                "padding, so pad labels on the right"
            )
    if start_id is None:
        bare = np.flatnonzero(~real.any(axis=1))
        if bare.size:
            raise ValueError(f"labels[{bare[0]}] is padding only: it has no last token to start from, so pass start_id")
        # argmax finds the first True. In the reversed row, that is the last token.
        last = tokens.shape[1] - 1 - real[:, ::-1].argmax(axis=1) if tokens.shape[1] else 0
        first = tokens[np.arange(len(tokens)), last][:, None] if tokens.size else tokens
    else:
        first = np.full((len(tokens), 1), start_id, np.int64)
    return np.concatenate([first, tokens[:, :-1]], axis=1)[:, : tokens.shape[1]]


def clean_sequences(
    sequences: Sequence[Sequence[int]] | Array, *, pad_id: int, eos_id: int, start_id: int | None = None
) -> list[list[int]]:
    """Remove start, end and padding from rows of token ids, so that a tokenizer can decode them.

    >>> clean_sequences([[0, 7, 8, 2, 9], [0, 7, 2, -100, -100]], pad_id=1, eos_id=2, start_id=0)
    [[7, 8], [7]]

    Args:
        sequences: N rows of ids, (N, T) or of different lengths. A row may begin with `start_id`, end with `eos_id`,
            and be filled up with `pad_id` or -100.
        pad_id: removed everywhere.
        eos_id: a row is cut before its first `eos_id`, which may be the same id as `pad_id` or `start_id`.
        start_id: removed once if it is the first id of a row. None: nothing is removed.

    Returns:
        N lists of ids, all of them 0 or more.

    Raises:
        ValueError: a negative id other than -100.
    """
    return [_clean(index, row, pad_id=pad_id, eos_id=eos_id, start_id=start_id) for index, row in enumerate(sequences)]


def _clean(index: int, row: Sequence[int] | Array, *, pad_id: int, eos_id: int, start_id: int | None) -> list[int]:
    ids = np.asarray(row).astype(np.int64)
    wrong = np.flatnonzero((ids < 0) & (ids != IGNORED))
    if wrong.size:
        raise ValueError(f"sequences[{index}][{wrong[0]}] is {ids[wrong[0]]}: an id is 0 or more, or -100")
    ids = ids[ids != IGNORED]
    if start_id is not None and ids.size and ids[0] == start_id:
        ids = ids[1:]
    ends = np.flatnonzero(ids == eos_id)
    if ends.size:
        ids = ids[: ends[0]]
    cleaned: list[int] = ids[ids != pad_id].tolist()
    return cleaned


def _refuse_negative(labels: npt.NDArray[Any]) -> None:
    wrong = np.argwhere((labels < 0) & (labels != IGNORED))
    if wrong.size:
        row, column = wrong[0]
        raise ValueError(f"labels[{row}][{column}] is {labels[row, column]}: a label is a token id, or -100")
