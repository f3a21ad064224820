"""Token ids on their way back to text: what is no token, and what stands behind the end, goes first.

Labels hold -100, and so do predictions once they were gathered over batches of different width. A tokenizer cannot read
a negative id, and what a model writes after its end of sequence is not part of its answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reference.ragged import IGNORED, Array


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
