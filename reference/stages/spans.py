"""Find the most likely answer spans from the logits of starts and ends, and pick the answer's text.

The score of a span is the sum of the logits at its two ends (Devlin et al. 2019, "BERT", section 4.2); "no answer"
competes with the best span by its own score (section 4.3). All pairs of tokens are considered, not only those of the 20
likeliest starts and ends, as in github.com/google-research/bert, run_squad.py, and the code derived from it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from touchstone.stages.batched import check_row_counts, rows_of_other_length
from touchstone.stages.ragged import Array, Ragged

Offsets = Sequence["Sequence[int] | None"]

BLOCK = 2**15
"""Tokens of windows that are searched at a time. A few arrays of this many doubles fit into the cache of a core."""


class Answer(TypedDict):
    """An answer: `text` is what the context holds from character `start` to `end`, end not included."""

    text: str
    start: int
    end: int
    score: float


def best_spans(
    start_logits: Sequence[Sequence[float]],
    *,
    end_logits: Sequence[Sequence[float]],
    offsets: Sequence[Offsets],
    n_best: int = 20,
    max_answer_length: int = 30,
) -> list[tuple[int, int, int, float]]:
    """Return the most likely answer spans of one example over all its windows.

    >>> best_spans(
    ...     [[0.0, 2.0, 1.0]], end_logits=[[0.0, 1.0, 3.0]], offsets=[[None, (0, 2), (3, 5)]], n_best=2
    ... )
    [(0, 1, 2, 5.0), (0, 2, 2, 4.0)]

    Args:
        start_logits, end_logits: W windows of (T_w,) numbers.
        offsets: W windows of (T_w,) pairs (start, end) of characters, `None` outside the context.
        n_best: the largest number of spans to return.
        max_answer_length: the largest number of tokens in an answer.

    Returns:
        `(window, first, last, score)`, the highest score (in double precision) first, equal scores in the order of
        window, first, last. Both ends are context tokens that have characters.

    Raises:
        ValueError: different lengths, `n_best` or `max_answer_length` below 1, a logit that is NaN or +inf.
    """
    if n_best < 1:
        raise ValueError(f"n_best is {n_best}: it must be 1 or more")
    _check_logits(start_logits, end_logits, offsets, max_answer_length)
    spans = _spans(start_logits, end_logits, offsets, max_answer_length)
    # Spans are generated one by one, because all pairs of a long context would not fit in memory.
    best: list[tuple[int, int, int, float]] = heapq.nsmallest(n_best, spans, key=lambda span: (-span[3], *span))
    return best


def pick_answer(
    start_logits: Sequence[Sequence[float]],
    *,
    end_logits: Sequence[Sequence[float]],
    offsets: Sequence[Offsets],
    context: str,
    cls: Sequence[int] | None = None,
    max_answer_length: int = 30,
    null_threshold: float = 0.0,
) -> Answer:
    """Return the answer as text.

    >>> logits = {"start_logits": [[0.0, 2.0, 1.0]], "end_logits": [[0.0, 1.0, 3.0]]}
    >>> pick_answer(logits["start_logits"], end_logits=logits["end_logits"],
    ...             offsets=[[None, (0, 2), (3, 5)]], context="in May")
    {'text': 'in Ma', 'start': 0, 'end': 5, 'score': 5.0}

    Args:
        start_logits, end_logits, offsets, max_answer_length: as in `best_spans`.
        context: the text whose characters the offsets count.
        cls: (W,) the index in each window of the token that stands for "no answer". With it, "no answer" competes.
        null_threshold: "no answer" wins if its score exceeds the best span's by more than this.

    Returns:
        `text`, `start`, `end`, `score`. If there is no answer, or no valid span, `text` is `""` and `start` and `end`
        are 0. The score is then the smallest sum over the windows of the two logits at `cls`, or 0.0 without `cls` (or
        without windows).

    Raises:
        ValueError: as in `best_spans`; different numbers of `cls` and windows, a `cls` outside its window, an offset
            outside the context.
    """
    best = best_spans(
        start_logits, end_logits=end_logits, offsets=offsets, n_best=1, max_answer_length=max_answer_length
    )
    for window, pairs in enumerate(offsets):
        for position, pair in enumerate(pairs):
            if pair is not None and not 0 <= pair[0] <= pair[1] <= len(context):
                raise ValueError(
                    f"offsets[{window}][{position}] is ({pair[0]}, {pair[1]}): "
                    f"the context has only {len(context)} characters"
                )
    null = None if cls is None else _null_score(start_logits, end_logits, cls)
    if not best or (null is not None and null - best[0][3] > null_threshold):
        return {"text": "", "start": 0, "end": 0, "score": 0.0 if null is None else null}
    window, first, last, score = best[0]
    left, right = offsets[window][first], offsets[window][last]
    assert left is not None
    assert right is not None
    start, end = int(left[0]), int(right[1])
    return {"text": context[start:end], "start": start, "end": end, "score": score}


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


def _null_score(
    start_logits: Sequence[Sequence[float]], end_logits: Sequence[Sequence[float]], cls: Sequence[int]
) -> float:
    if len(cls) != len(start_logits):
        raise ValueError(f"{len(cls)} values of cls for {len(start_logits)} windows")
    for window, position in enumerate(cls):
        if not 0 <= position < len(start_logits[window]):
            raise ValueError(f"cls[{window}] is {position}: the window has {len(start_logits[window])} tokens")
    scores = [float(s[at]) + float(e[at]) for s, e, at in zip(start_logits, end_logits, cls, strict=True)]
    return min(scores, default=0.0)


# The batched versions -------------------------------------------------------------------------------------------------


def best_spans_batch(
    start_logits: npt.NDArray[Any],
    *,
    end_logits: npt.NDArray[Any],
    starts: Ragged,
    ends: Ragged,
    max_answer_length: int = 30,
) -> dict[str, Any]:
    """Return the best span of each of W windows: that of `best_spans` with `n_best=1` for the window alone.

    >>> starts, ends = Ragged.from_lists([[None, 0, 3]]), Ragged.from_lists([[None, 2, 5]])
    >>> logits = {"start_logits": np.array([0.0, 2.0, 1.0]), "end_logits": np.array([0.0, 1.0, 3.0])}
    >>> spans = best_spans_batch(logits["start_logits"], end_logits=logits["end_logits"], starts=starts, ends=ends)
    >>> {name: column.tolist() for name, column in spans.items()}
    {'first': [1], 'last': [2], 'score': [5.0]}

    Args:
        start_logits, end_logits: (sum of T_w,) floats, all windows concatenated as in `starts.values`.
        starts, ends: (W, T_w) the characters of each token, -1 outside the context.
        max_answer_length: the largest number of tokens in an answer.

    Returns:
        `first` and `last`, (W,) int64, -1 if the window has no span, and `score`, (W,) float64, -inf in that case.

    Raises:
        ValueError: as in `best_spans`, with the number of the row.
    """
    if max_answer_length < 1:
        raise ValueError(f"max_answer_length is {max_answer_length}: an answer has 1 token or more")
    check_row_counts(len(starts), ends=ends)
    if (unlike := np.flatnonzero(rows_of_other_length(starts, ends))).size:
        raise ValueError(f"row {unlike[0]}: starts and ends differ in length")
    for name, logits in (("start_logits", start_logits), ("end_logits", end_logits)):
        if logits.shape != starts.values.shape:
            raise ValueError(f"{name} has shape {logits.shape}, starts {starts.values.shape}")
        if not (logits < np.inf).all():  # false for NaN as well
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
    # Windows are searched in blocks, so that intermediate arrays stay in the processor's cache.
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


def pick_answer_batch(
    spans: Mapping[str, Any],
    *,
    example: Array,
    starts: Ragged,
    ends: Ragged,
    contexts: Sequence[str],
    null_scores: npt.NDArray[Any] | None = None,
    null_threshold: float = 0.0,
) -> list[Answer]:
    """Apply `pick_answer` to N examples, given the best span of each of their W windows.

    Args:
        spans: as `best_spans_batch` returns them.
        example: (W,) the example of each window. The windows of an example are in the order of their rows.
        starts, ends: (W, T_w) the characters of each token.
        contexts: N texts.
        null_scores: (W,) the sum of the two logits of "no answer", if it competes.
        null_threshold: as in `pick_answer`.

    Returns:
        N answers.

    Raises:
        ValueError: columns of different lengths, an index in `example` that no context has, an offset outside the
            context.
    """
    first, last, score = (np.asarray(spans[name]) for name in ("first", "last", "score"))
    example, n = np.asarray(example, dtype=np.int64), len(contexts)
    sizes = {"example": len(example), "starts": len(starts), "ends": len(ends)}
    sizes |= {} if null_scores is None else {"null_scores": len(null_scores)}
    for name, size in sizes.items():
        if size != len(first):
            raise ValueError(f"{name} has {size} rows where {len(first)} are expected")
    if (odd := np.flatnonzero((example < 0) | (example >= n))).size:
        raise ValueError(f"example[{odd[0]}] is {example[odd[0]]}: there are {n} contexts")
    length = np.fromiter(map(len, contexts), dtype=np.int64, count=n)
    outside = np.flatnonzero(ends.values > np.repeat(length[example], ends.lengths))
    if outside.size:
        row = int(ends.rows[outside[0]])
        raise ValueError(
            f"row {row}: an offset ends at {ends.values[outside[0]]}, beyond the {length[example[row]]} characters of "
            "the context"
        )

    found = np.flatnonzero(first >= 0)
    ranked = found[np.lexsort((found, -score[found], example[found]))]
    _, leaders = np.unique(example[ranked], return_index=True)
    winners = ranked[leaders]
    window = np.full(n, -1, dtype=np.int64)
    window[example[winners]] = winners
    null = np.full(n, np.inf)
    if null_scores is not None:
        np.minimum.at(null, example, np.asarray(null_scores, dtype=np.float64))
    null[np.isinf(null) & (null > 0)] = 0.0  # examples without windows, or where "no answer" does not compete
    answered = np.flatnonzero(window >= 0)
    if null_scores is not None:
        answered = answered[~(null[answered] - score[window[answered]] > null_threshold)]
    chosen = window[answered]
    places = zip(
        answered.tolist(),
        starts.values[starts.offsets[chosen] + first[chosen]].tolist(),
        ends.values[ends.offsets[chosen] + last[chosen]].tolist(),
        score[chosen].tolist(),
        strict=True,
    )
    answers: list[Answer] = [{"text": "", "start": 0, "end": 0, "score": nothing} for nothing in null.tolist()]
    for number, start, end, value in places:
        answers[number] = {"text": contexts[number][start:end], "start": start, "end": end, "score": value}
    return answers


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
    """Find the best spans of these windows and write them into `found`."""
    offsets = starts.offsets[windows.start : windows.stop + 1]
    here, offsets = slice(offsets[0], offsets[-1]), offsets - offsets[0]
    lengths = np.diff(offsets)
    tokens = np.flatnonzero((starts.values[here] >= 0) & (starts.values[here] < ends.values[here]))
    low, high = np.searchsorted(tokens, offsets[:-1]), np.searchsorted(tokens, offsets[1:])
    rows = np.flatnonzero(low < high)
    if not rows.size:
        return

    # Each window's tokens, followed by as many places of -inf as an answer could reach beyond its end.
    reach = min(max_answer_length, int(lengths.max()))
    sizes = lengths[rows] + reach - 1
    begin = np.cumsum(sizes) - sizes
    total = int(sizes.sum())
    places = tokens + np.repeat(begin - offsets[rows], (high - low)[rows])
    left, right = np.full(total, -np.inf), np.full(total, -np.inf)
    left[places], right[places] = start_logits[here][tokens], end_logits[here][tokens]

    # The best end of each start: a running maximum over `reach` places, built from those over 1, 2, 4 ... places.
    ahead, width = right.copy(), 1
    while width < reach:
        step = min(width, reach - width)
        np.maximum(ahead[:-step], ahead[step:], out=ahead[:-step])
        width += step
    ahead += left
    # Rounding is monotonic, so the best sum of a start is exactly the sum with its best end.
    best = np.maximum.reduceat(ahead, begin)
    usable = np.zeros(total, np.bool_)
    usable[places] = True  # a start of -inf is valid, a place between windows is not
    equal = np.flatnonzero(usable & (ahead == np.repeat(best, sizes)))
    start = equal[np.searchsorted(equal, begin)]
    ahead_of = start[:, None] + np.arange(reach)  # (rows, reach)
    hits = usable[ahead_of] & (left[start][:, None] + right[ahead_of] == best[:, None])
    found["first"][rows] = start - begin
    found["last"][rows] = found["first"][rows] + hits.argmax(1)
    found["score"][rows] = best
