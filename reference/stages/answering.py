"""Where an answer stands in the windows of its question: from characters of the context to tokens.

Source: Devlin et al. 2019, "BERT", section 4.2; a window that does not hold an answer points to the token that stands
for "no answer".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reference.ragged import Array, Ragged
from reference.stages.twins import check_row_counts, rows_of_other_length


def answer_positions(
    answers: Sequence[Sequence[int]], *, offsets: Sequence[Sequence[int] | None], cls: int
) -> tuple[int, int]:
    """The answer's first and last token in a window, both included.

    Args:
        answers: pairs (start, end) of characters of the context, end not included; none where there is no answer.
        offsets: (T,) of a window, as `make_windows` gives them.
        cls: the index in the window of the token that stands for "no answer".

    Returns:
        Of the first answer that is in the window, the first and the last token whose characters overlap its own; else
        `(cls, cls)`. An answer is in the window if the first context token that has characters begins at or before
        its start and the last one ends at or after its end.

    Raises:
        ValueError: an answer with `end <= start` or `start < 0`, `cls` outside the window.
    """
    if not 0 <= cls < len(offsets):
        raise ValueError(f"cls is {cls}: the window has the tokens 0 to {len(offsets) - 1}")
    for number, (start, end) in enumerate(answers):
        if start < 0 or end <= start:
            raise ValueError(f"answers[{number}] is ({start}, {end}): it has characters, the first at 0 or later")
    tokens = [(position, *pair) for position, pair in enumerate(offsets) if pair is not None and pair[0] < pair[1]]
    for start, end in answers:
        if not tokens or tokens[0][1] > start or tokens[-1][2] < end:
            continue
        inside = [position for position, begins, ends in tokens if begins < end and start < ends]
        if inside:
            return inside[0], inside[-1]
    return int(cls), int(cls)


# The batched twin -----------------------------------------------------------------------------------------------------


def answer_positions_batch(
    answer_starts: Ragged, *, answer_ends: Ragged, starts: Ragged, ends: Ragged, cls: Array
) -> tuple[Array, Array]:
    """`answer_positions` of W windows.

    Args:
        answer_starts, answer_ends: (W, A_i) characters of each window's acceptable answers.
        starts, ends: (W, T_i) as `make_windows_batch` gives them.
        cls: (W,) the index of each window's "no answer".

    Returns:
        (W,) first and (W,) last token of the answer.

    Raises:
        ValueError: as `answer_positions`, naming the row; numbers of rows that differ.
    """
    cls = np.asarray(cls, dtype=np.int64)
    check_row_counts(len(starts), answer_starts=answer_starts, answer_ends=answer_ends, ends=ends)
    if len(cls) != len(starts):
        raise ValueError(f"{len(cls)} values of cls for {len(starts)} windows")
    unlike = rows_of_other_length(starts, ends) | rows_of_other_length(answer_starts, answer_ends)
    if unlike.any():
        raise ValueError(f"row {np.flatnonzero(unlike)[0]}: starts and ends differ in length")
    _refuse_answers(answer_starts, answer_ends, starts, cls)

    tokens = np.flatnonzero((starts.values >= 0) & (starts.values < ends.values))
    low = np.searchsorted(tokens, starts.offsets[:-1])
    high = np.searchsorted(tokens, starts.offsets[1:])
    begins, stops = starts.values[tokens], ends.values[tokens]
    first, last = cls.copy(), cls.copy()
    open_rows = np.flatnonzero((low < high) & (answer_starts.lengths > 0))
    number = 0  # of the answer: few examples have many, and most are decided by their first
    while open_rows.size:
        start = answer_starts.values[answer_starts.offsets[open_rows] + number]
        end = answer_ends.values[answer_ends.offsets[open_rows] + number]
        found = np.zeros(len(open_rows), np.bool_)
        near = np.flatnonzero((begins[low[open_rows]] <= start) & (end <= stops[high[open_rows] - 1]))
        if near.size:
            rows = open_rows[near]
            sizes = high[rows] - low[rows]
            offsets = np.concatenate([[0], np.cumsum(sizes)])
            at = np.arange(offsets[-1]) + np.repeat(low[rows] - offsets[:-1], sizes)
            overlaps = np.flatnonzero(
                (begins[at] < np.repeat(end[near], sizes)) & (np.repeat(start[near], sizes) < stops[at])
            )
            left, right = np.searchsorted(overlaps, offsets[:-1]), np.searchsorted(overlaps, offsets[1:])
            hit = left < right
            first[rows[hit]] = tokens[at[overlaps[left[hit]]]] - starts.offsets[rows[hit]]
            last[rows[hit]] = tokens[at[overlaps[right[hit] - 1]]] - starts.offsets[rows[hit]]
            found[near[hit]] = True
        number += 1
        open_rows = open_rows[~found & (answer_starts.lengths[open_rows] > number)]
    return first, last


def _refuse_answers(answer_starts: Ragged, answer_ends: Ragged, starts: Ragged, cls: Array) -> None:
    wrong = (cls < 0) | (cls >= starts.lengths)
    odd = (answer_starts.values < 0) | (answer_ends.values <= answer_starts.values)
    wrong[answer_starts.rows[odd]] = True
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong)[0])
    answers = list(zip(answer_starts[row].tolist(), answer_ends[row].tolist(), strict=True))
    try:
        answer_positions(answers, offsets=[None] * len(starts[row]), cls=int(cls[row]))
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from None
    raise AssertionError(f"row {row} is wrong to the batched twin and right to answer_positions")  # a bug of the twin
