"""transformers' examples run_qa.py and utils_qa.py (version 4.56): positions of answers, and the choice of an answer.

Written anew with the same behaviour.

* `answer_positions`: `prepare_train_features`. The script looks through all offsets of the window, in which special
  tokens and padding have (0, 0). It takes the first answer.
* `pick_answer`: `postprocess_qa_predictions` with its 20 best; `cls` is `--version_2_with_negative`. The script always
  takes the first token for "no answer". It returns the text; the adapter adds where it was cut from the context.
* `squad_scores`: evaluate's `squad`, as without `--version_2_with_negative`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from touchstone.suite.implementations.evaluate_squad import squad_scores

__all__ = ["answer_positions", "choices", "pick_answer", "squad_scores", "supports"]

Offsets = Sequence[Sequence[int] | None]

supports = {
    "answer_positions": {
        "answers": lambda answers: len(answers) <= 1,
        "offsets": lambda offsets: any(pair is not None for pair in offsets),
    },
    "pick_answer": {"cls": lambda cls: cls is None or not any(cls)},
}
choices = {"no_answer": "v1.1", "ties": "any"}


def answer_positions(answers: Sequence[tuple[int, int]], *, offsets: Offsets, cls: int) -> tuple[int, int]:
    if len(answers) == 0:
        return cls, cls
    start_char, end_char = answers[0]
    in_context = [pair is not None for pair in offsets]
    pairs = [(0, 0) if pair is None else tuple(pair) for pair in offsets]
    start = 0
    while not in_context[start]:
        start += 1
    end = len(pairs) - 1
    while not in_context[end]:
        end -= 1
    if not (pairs[start][0] <= start_char and pairs[end][1] >= end_char):
        return cls, cls
    while start < len(pairs) and pairs[start][0] <= start_char:
        start += 1
    while pairs[end][1] >= end_char:
        end -= 1
    return start - 1, end + 1


def pick_answer(
    start_logits: Sequence[Sequence[float]],
    *,
    end_logits: Sequence[Sequence[float]],
    offsets: Sequence[Offsets],
    context: str,
    cls: Sequence[int] | None = None,
    max_answer_length: int = 30,
    null_threshold: float = 0.0,
) -> dict[str, Any]:
    n_best = 20
    null: dict[str, Any] | None = None
    found: list[dict[str, Any]] = []
    for start_logit, end_logit, pairs in zip(start_logits, end_logits, offsets, strict=True):
        null_score = start_logit[0] + end_logit[0]
        if null is None or null["score"] > null_score:
            null = {"offsets": (0, 0), "score": null_score}
        for start in np.argsort(start_logit)[-1 : -n_best - 1 : -1].tolist():
            for end in np.argsort(end_logit)[-1 : -n_best - 1 : -1].tolist():
                left, right = pairs[start], pairs[end]
                if left is None or right is None or end < start or end - start + 1 > max_answer_length:
                    continue
                found.append({"offsets": (left[0], right[1]), "score": start_logit[start] + end_logit[end]})
    if cls is not None and null is not None:
        found.append(null)
    found = sorted(found, key=lambda each: each["score"], reverse=True)[:n_best]
    if cls is not None and null is not None and not any(each["offsets"] == (0, 0) for each in found):
        found.append(null)
    for each in found:
        each["start"], each["end"] = each["offsets"]
        each["text"] = context[each["start"] : each["end"]]
    if not found or (len(found) == 1 and found[0]["text"] == ""):
        found.insert(0, {"text": "empty", "score": 0.0, "start": 0, "end": 0})
    best = found[0]
    if cls is not None and null is not None:
        number = 0
        while found[number]["text"] == "":
            number += 1
        best = found[number]
        if null["score"] - best["score"] > null_threshold:
            best = {"text": "", "score": null["score"], "start": 0, "end": 0}
    return {key: best[key] for key in ("text", "start", "end", "score")}
