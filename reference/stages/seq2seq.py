"""An encoder and a decoder in one batch, and what the decoder reads while it learns to write the labels.

Source and target are padded each to a width of its own. The decoder predicts label t from labels 0 to t - 1: so it
reads the labels one place later, after a token to start from.

Sources: Marian, BART and T5 start from a fixed token (`decoder_start_token_id`); mBART (Liu et al. 2020) ends a target
in its language's token and starts the decoder from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from touchstone.stages.collation import FILLS, check_side, pad_batch, pad_rows, read_rows
from touchstone.stages.ragged import IGNORED, Array

# Token ids on their way back to text: what is no token, and what stands behind the end, goes first. Labels hold
# -100, and so do predictions once they were gathered over batches of different width. A tokenizer cannot read a
# negative id, and what a model writes after its end of sequence is not part of its answer.


def clean_sequences(
    sequences: Sequence[Sequence[int]] | Array, *, pad_id: int, eos_id: int, start_id: int | None = None
) -> list[list[int]]:
    """The tokens of each row alone, for a tokenizer to decode.

    Args:
        sequences: N rows of ids, (N, T) or of different lengths, each perhaps beginning with `start_id`, ended by
            `eos_id`, and filled up by `pad_id` or -100.
        pad_id: dropped wherever it stands.
        eos_id: the row ends before the first of these. It may be the same as `pad_id` or `start_id`.
        start_id: one of these is dropped if it stands first. None: nothing is.

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


TARGET_FILLS = {"labels": FILLS["labels"], "decoder_attention_mask": 0}
"""The target's columns; all others are the source's."""


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
    """A batch of B pairs of source and target as arrays.

    Args:
        features: B mappings of column to T_i integers, or to one integer, as `pad_batch` takes them. `labels`, and
            `decoder_attention_mask` if it is there, may have another length than the source's columns.
        pad_id: fills `input_ids`; the labels are filled with -100, the decoder's mask with 0.
        side, label_side: where the source's and the target's padding goes, `right` or `left`.
        multiple_of: round both widths up to a multiple of this.
        length, label_length: the widths, instead of the longest source and the longest labels.

    Returns:
        Column to (B, S) int64 for the source, (B, T) for the target, (B,) for columns of single integers;
        `attention_mask` is made where it is missing.

    Raises:
        ValueError: as `pad_batch`; a feature without `labels`, labels longer than `label_length`, a column of the
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
    """What the decoder reads at each place while it predicts the label there: the label before.

    Args:
        labels: (B, T), right-padded with -100 or `pad_id`.
        pad_id: what takes the place of -100.
        start_id: what stands first (Marian, BART, T5). None: the row's last label that is neither -100 nor `pad_id`
            does, its language's token (mBART).

    Returns:
        (B, T) int64, nothing in it negative; the last column of `labels` is not in it.

    Raises:
        ValueError: another shape, a negative label other than -100, labels with padding before them; without
            `start_id`, a row of padding only.
    """
    array = np.asarray(labels)
    if array.ndim != 2 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"labels of shape {array.shape} and type {array.dtype}: hand over (B, T) integers")
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
            raise ValueError(f"labels[{bare[0]}] is padding only: it has no last token to start from, pass start_id")
        # argmax finds the first True: of the row read backwards, that is its last token.
        last = tokens.shape[1] - 1 - real[:, ::-1].argmax(axis=1) if tokens.shape[1] else 0
        first = tokens[np.arange(len(tokens)), last][:, None] if tokens.size else tokens
    else:
        first = np.full((len(tokens), 1), start_id, np.int64)
    return np.concatenate([first, tokens[:, :-1]], axis=1)[:, : tokens.shape[1]]


def _refuse_negative(labels: npt.NDArray[Any]) -> None:
    wrong = np.argwhere((labels < 0) & (labels != IGNORED))
    if wrong.size:
        row, column = wrong[0]
        raise ValueError(f"labels[{row}][{column}] is {labels[row, column]}: a label is a token id, or -100")
