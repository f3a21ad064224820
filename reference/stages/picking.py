"""From the likeliest spans to the answer as text, or to none.

Source: Devlin et al. 2019, "BERT", section 4.3 (no answer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from reference.ragged import Array, Ragged
from reference.stages.spans import Offsets, best_spans


class Answer(TypedDict):
    """`text` stands at the characters `start` to `end` of the context, end not included."""

    text: str
    start: int
    end: int
    score: float


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
    """The answer as text.

    Args:
        start_logits, end_logits, offsets, max_answer_length: as in `best_spans`.
        context: what the offsets count the characters of.
        cls: (W,) in each window the index of the token that stands for "no answer", which then competes.
        null_threshold: "no answer" wins if its score is more than this above the best span's.

    Returns:
        `text`, `start`, `end`, `score`. No answer, and no valid span, is `""` at 0 to 0; its score is the smallest
        over the windows of the two logits at `cls`, or 0.0 without `cls` (or without windows).

    Raises:
        ValueError: as `best_spans`; as many `cls` as windows, each inside its own; an offset outside the context.
    """
    best = best_spans(
        start_logits, end_logits=end_logits, offsets=offsets, n_best=1, max_answer_length=max_answer_length
    )
    for window, pairs in enumerate(offsets):
        for position, pair in enumerate(pairs):
            if pair is not None and not 0 <= pair[0] <= pair[1] <= len(context):
                raise ValueError(
                    f"offsets[{window}][{position}] is ({pair[0]}, {pair[1]}): "
                    f"the context has {len(context)} characters"
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


# The batched twin -----------------------------------------------------------------------------------------------------


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
    """`pick_answer` of N examples, from the best span of each of their W windows.

    Args:
        spans: as `best_spans_batch` gives them.
        example: (W,) the example of each window; a window of an earlier row is an earlier window.
        starts, ends: (W, T_w) the characters of each token.
        contexts: N texts.
        null_scores: (W,) the two logits of "no answer" added up, if it competes.
        null_threshold: as in `pick_answer`.

    Raises:
        ValueError: columns of different lengths, an example that is not there, an offset outside the context.
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
        raise ValueError(f"row {row}: an offset ends at {ends.values[outside[0]]}: the context has fewer characters")

    found = np.flatnonzero(first >= 0)
    ranked = found[np.lexsort((found, -score[found], example[found]))]
    _, leaders = np.unique(example[ranked], return_index=True)
    winners = ranked[leaders]
    window = np.full(n, -1, dtype=np.int64)
    window[example[winners]] = winners
    null = np.full(n, np.inf)
    if null_scores is not None:
        np.minimum.at(null, example, np.asarray(null_scores, dtype=np.float64))
    null[np.isinf(null) & (null > 0)] = 0.0  # examples without a window, or without a "no answer"
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
