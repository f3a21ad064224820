"""From the logits of starts and ends to the likeliest spans, over all windows of an example.

Source: Devlin et al. 2019, "BERT", section 4.2 (a span's score is the sum of its ends' logits).
All pairs are looked at, not those of the likeliest 20 starts and ends alone as github.com/google-research/bert,
run_squad.py, and its heirs do.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from reference.ragged import Ragged
from reference.stages.twins import check_row_counts, rows_of_other_length

Offsets = Sequence["Sequence[int] | None"]

BLOCK = 2**15
"""Tokens of windows that are searched at a time: some arrays of so many doubles fit a core's cache."""


def best_spans(
    start_logits: Sequence[Sequence[float]],
    *,
    end_logits: Sequence[Sequence[float]],
    offsets: Sequence[Offsets],
    n_best: int = 20,
    max_answer_length: int = 30,
) -> list[tuple[int, int, int, float]]:
    """The likeliest answers of one example over all its windows.

    Args:
        start_logits, end_logits: W windows of (T_w,) numbers.
        offsets: W windows of (T_w,) pairs (start, end) of characters, `None` outside the context.
        n_best: how many are wanted.
        max_answer_length: tokens of an answer at most.

    Returns:
        `(window, first, last, score)`, the highest score (of double precision) first, equal ones by window, first,
        last. Both ends are context tokens that have characters.

    Raises:
        ValueError: lengths that differ, `n_best` or `max_answer_length` below 1, a logit that is NaN or +inf.
    """
    if n_best < 1:
        raise ValueError(f"n_best is {n_best}: ask for 1 or more")
    _check_logits(start_logits, end_logits, offsets, max_answer_length)
    spans = _spans(start_logits, end_logits, offsets, max_answer_length)
    # One after the other, for all pairs of a long context would not fit in memory.
    best: list[tuple[int, int, int, float]] = heapq.nsmallest(n_best, spans, key=lambda span: (-span[3], *span))
    return best


def _spans(
    start_logits: Sequence[Sequence[float]],
    end_logits: Sequence[Sequence[float]],
    offsets: Sequence[Offsets],
    max_answer_length: int,
) -> Iterator[tuple[int, int, int, float]]:
    for window, pairs in enumerate(offsets):
        tokens = [position for position, pair in enumerate(pairs) if pair is not None and pair[0] < pair[1]]
        starts, ends = list(map(float, start_logits[window])), list(map(float, end_logits[window]))
        for index, first in enumerate(tokens):
            for last in tokens[index : index + max_answer_length]:
                if last >= first + max_answer_length:
                    break
                yield window, first, last, starts[first] + ends[last]


def _check_logits(
    start_logits: Sequence[Sequence[float]],
    end_logits: Sequence[Sequence[float]],
    offsets: Sequence[Offsets],
    max_answer_length: int,
) -> None:
    if max_answer_length < 1:
        raise ValueError(f"max_answer_length is {max_answer_length}: an answer has 1 token or more")
    for name, logits in (("start_logits", start_logits), ("end_logits", end_logits)):
        if len(logits) != len(offsets):
            raise ValueError(f"{name} has {len(logits)} windows, offsets {len(offsets)}")
        for window, row in enumerate(logits):
            if len(row) != len(offsets[window]):
                raise ValueError(f"{name}[{window}] has length {len(row)}, offsets[{window}] {len(offsets[window])}")
            for position, value in enumerate(row):
                if math.isnan(value) or value == math.inf:
                    raise ValueError(f"{name}[{window}][{position}] is {value}: a logit is a number, or -inf")


# The batched twins ----------------------------------------------------------------------------------------------------


def best_spans_batch(
    start_logits: npt.NDArray[Any],
    *,
    end_logits: npt.NDArray[Any],
    starts: Ragged,
    ends: Ragged,
    max_answer_length: int = 30,
) -> dict[str, Any]:
    """The best span of each of W windows: what `best_spans` with `n_best=1` gives for the window alone.

    Args:
        start_logits, end_logits: (sum of T_w,) floats of all windows in a row, whose rows are those of `starts`.
        starts, ends: (W, T_w) the characters of each token, -1 outside the context.
        max_answer_length: tokens of an answer at most.

    Returns:
        `first`, `last` (W,) int64, -1 where a window has no span, and `score` (W,) float64, there -inf.

    Raises:
        ValueError: as `best_spans`, naming the row.
    """
    if max_answer_length < 1:
        raise ValueError(f"max_answer_length is {max_answer_length}: an answer has 1 token or more")
    check_row_counts(len(starts), ends=ends)
    if (unlike := np.flatnonzero(rows_of_other_length(starts, ends))).size:
        raise ValueError(f"row {unlike[0]}: starts and ends differ in length")
    for name, logits in (("start_logits", start_logits), ("end_logits", end_logits)):
        if logits.shape != starts.values.shape:
            raise ValueError(f"{name} has shape {logits.shape}, starts {starts.values.shape}")
        if not (logits < np.inf).all():  # so also NaN
            at = int(np.flatnonzero(~(logits < np.inf))[0])
            row = int(np.searchsorted(starts.offsets, at, side="right") - 1)
            raise ValueError(
                f"row {row}: {name}[{at - starts.offsets[row]}] is {logits[at]}: a logit is a number, or -inf"
            )
    found: dict[str, Any] = {
        "first": np.full(len(starts), -1, dtype=np.int64),
        "last": np.full(len(starts), -1, dtype=np.int64),
        "score": np.full(len(starts), -np.inf),
    }
    # In blocks of windows, so that what is in the making stays in the processor's cache.
    blocks = np.unique(np.searchsorted(starts.offsets[1:], np.arange(0, len(starts.values), BLOCK)))
    for begin, end in pairwise([*blocks.tolist(), len(starts)]):
        _find_best(
            {name: column[begin:end] for name, column in found.items()},
            start_logits=start_logits,
            end_logits=end_logits,
            starts=starts,
            ends=ends,
            windows=slice(begin, end),
            max_answer_length=max_answer_length,
        )
    return found


def _find_best(
    found: Mapping[str, npt.NDArray[Any]],
    *,
    start_logits: npt.NDArray[Any],
    end_logits: npt.NDArray[Any],
    starts: Ragged,
    ends: Ragged,
    windows: slice,
    max_answer_length: int,
) -> None:
    """Writes into `found` what there is in these windows."""
    offsets = starts.offsets[windows.start : windows.stop + 1]
    here, offsets = slice(offsets[0], offsets[-1]), offsets - offsets[0]
    lengths = np.diff(offsets)
    tokens = np.flatnonzero((starts.values[here] >= 0) & (starts.values[here] < ends.values[here]))
    low, high = np.searchsorted(tokens, offsets[:-1]), np.searchsorted(tokens, offsets[1:])
    rows = np.flatnonzero(low < high)
    if not rows.size:
        return

    # Every window's tokens, followed by as many places of -inf as an answer may reach beyond its end.
    reach = min(max_answer_length, int(lengths.max()))
    sizes = lengths[rows] + reach - 1
    begin = np.cumsum(sizes) - sizes
    total = int(sizes.sum())
    places = tokens + np.repeat(begin - offsets[rows], (high - low)[rows])
    left, right = np.full(total, -np.inf), np.full(total, -np.inf)
    left[places], right[places] = start_logits[here][tokens], end_logits[here][tokens]

    # The best end of each start: a maximum over `reach` places, from those over 1, 2, 4 ... places.
    ahead, width = right.copy(), 1
    while width < reach:
        step = min(width, reach - width)
        np.maximum(ahead[:-step], ahead[step:], out=ahead[:-step])
        width += step
    ahead += left
    # Rounding is monotonic: the best sum of a start is that with its best end, and so the same number.
    best = np.maximum.reduceat(ahead, begin)
    usable = np.zeros(total, np.bool_)
    usable[places] = True  # a start of -inf is a start; a place between windows is none
    equal = np.flatnonzero(usable & (ahead == np.repeat(best, sizes)))
    start = equal[np.searchsorted(equal, begin)]
    ahead_of = start[:, None] + np.arange(reach)  # (rows, reach)
    hits = usable[ahead_of] & (left[start][:, None] + right[ahead_of] == best[:, None])
    found["first"][rows] = start - begin
    found["last"][rows] = found["first"][rows] + hits.argmax(1)
    found["score"][rows] = best
