"""Spans by length: all spans of one token, all of two tokens, and so on, then sorted."""

from collections.abc import Sequence
from typing import Any


def best_spans(
    start_logits: Sequence[Any],
    *,
    end_logits: Sequence[Any],
    offsets: Sequence[Any],
    n_best: int = 20,
    max_answer_length: int = 30,
) -> list[tuple[int, int, int, float]]:
    """See `docs/contract.md`."""
    for name, count in (("n_best", n_best), ("max_answer_length", max_answer_length)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if not len(start_logits) == len(end_logits) == len(offsets):
        raise ValueError(f"{len(start_logits)}, {len(end_logits)} and {len(offsets)} windows")
    found: list[tuple[float, int, int, int]] = []
    for window, (starts, ends, pairs) in enumerate(zip(start_logits, end_logits, offsets, strict=True)):
        if not len(starts) == len(ends) == len(pairs):
            raise ValueError(f"window {window} has {len(starts)} and {len(ends)} logits for {len(pairs)} tokens")
        for position, value in enumerate([*starts, *ends]):
            if value != value or value == float("inf"):
                raise ValueError(f"window {window}, logit {position} is {value}")
        usable = [pair is not None and pair[0] != pair[1] for pair in pairs]
        for length in range(1, min(max_answer_length, len(pairs)) + 1):
            for first in range(len(pairs) - length + 1):
                last = first + length - 1
                if usable[first] and usable[last]:
                    found.append((float(starts[first]) + float(ends[last]), window, first, last))
    found.sort(key=lambda item: item[1:])
    found.sort(key=lambda item: item[0], reverse=True)  # a stable sort keeps the order of equal scores
    return [(window, first, last, score) for score, window, first, last in found[:n_best]]


def pick_answer(
    start_logits: Sequence[Any],
    *,
    end_logits: Sequence[Any],
    offsets: Sequence[Any],
    context: str,
    cls: Sequence[int] | None = None,
    max_answer_length: int = 30,
    null_threshold: float = 0.0,
) -> dict[str, Any]:
    """See `docs/contract.md`."""
    best = best_spans(
        start_logits, end_logits=end_logits, offsets=offsets, n_best=1, max_answer_length=max_answer_length
    )
    furthest = max((pair[1] for pairs in offsets for pair in pairs if pair is not None), default=0)
    nearest = min((pair[0] for pairs in offsets for pair in pairs if pair is not None), default=0)
    if nearest < 0 or furthest > len(context):
        raise ValueError(f"offsets run from {nearest} to {furthest}, the context has {len(context)} characters")
    no_answer: dict[str, Any] = {"text": "", "start": 0, "end": 0, "score": 0.0}
    if cls is not None:
        if len(cls) != len(offsets):
            raise ValueError(f"{len(cls)} cls for {len(offsets)} windows")
        scores = []
        for window, position in enumerate(cls):
            if position not in range(len(offsets[window])):
                raise ValueError(f"cls {position} is not in window {window}")
            scores.append(float(start_logits[window][position]) + float(end_logits[window][position]))
        no_answer["score"] = sorted(scores)[0] if scores else 0.0
        if best and no_answer["score"] - best[0][3] > null_threshold:
            return no_answer
    for window, first, last, score in best:
        start, end = int(offsets[window][first][0]), int(offsets[window][last][1])
        return {"text": context[start:end], "start": start, "end": end, "score": score}
    return no_answer
