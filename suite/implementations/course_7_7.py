"""The Hugging Face course, section 7.7 (15 April 2026): positions of answers, and the choice of an answer.

Written anew with the same behaviour. The section's tokenizer is BERT's: every window has [CLS] first and [SEP] last,
and every token has characters of its own. Its data is SQuAD 1.1: every training example has one answer.

* `answer_positions`: the section finds the context by the ids of sequences. The adapter takes them from the offsets.
* `pick_answer`: the section pairs the 20 likeliest starts and ends, and knows no "no answer". It returns the text; the
  adapter adds where it was cut from the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from touchstone.suite.implementations.evaluate_squad import squad_scores

__all__ = ["answer_positions", "choices", "pick_answer", "squad_scores", "supports"]

Offsets = Sequence[Sequence[int] | None]


def is_bert_window(offsets: Offsets) -> bool:
    """Return whether special tokens surround a part of the context, whose tokens have characters of their own."""
    inner = [pair for pair in offsets if pair is not None]
    apart = all(left[1] <= right[0] for left, right in pairwise(inner)) and all(start < end for start, end in inner)
    return bool(inner) and apart and offsets[0] is None and offsets[-1] is None


supports = {
    "answer_positions": {"answers": lambda answers: len(answers) == 1, "offsets": is_bert_window, "cls": [0]},
    "pick_answer": {
        "offsets": lambda offsets: all(start < end for row in offsets for start, end in filter(None, row)),
        "cls": [None],
    },
}
choices = {"no_answer": "v1.1", "ties": "any"}


def answer_positions(answers: Sequence[tuple[int, int]], *, offsets: Offsets) -> tuple[int, int]:
    sequence_ids = [None if pair is None else 1 for pair in offsets]
    start_char, end_char = answers[0]
    index = 0
    while sequence_ids[index] != 1:
        index += 1
    context_start = index
    while sequence_ids[index] == 1:
        index += 1
    context_end = index - 1
    pairs: list[Any] = list(offsets)
    if pairs[context_start][0] > start_char or pairs[context_end][1] < end_char:
        return 0, 0
    first = context_start
    while first <= context_end and pairs[first][0] <= start_char:
        first += 1
    last = context_end
    while last >= context_start and pairs[last][1] >= end_char:
        last -= 1
    return first - 1, last + 1


def pick_answer(
    start_logits: Sequence[Sequence[float]],
    *,
    end_logits: Sequence[Sequence[float]],
    offsets: Sequence[Offsets],
    context: str,
    max_answer_length: int = 30,
) -> dict[str, Any]:
    n_best = 20
    answers = []
    for start_logit, end_logit, pairs in zip(start_logits, end_logits, offsets, strict=True):
        for start in np.argsort(start_logit)[-1 : -n_best - 1 : -1].tolist():
            for end in np.argsort(end_logit)[-1 : -n_best - 1 : -1].tolist():
                left, right = pairs[start], pairs[end]
                if left is None or right is None or end < start or end - start + 1 > max_answer_length:
                    continue
                text = context[left[0] : right[1]]
                score = start_logit[start] + end_logit[end]
                answers.append({"text": text, "score": score, "start": left[0], "end": right[1]})
    if not answers:
        return {"text": "", "score": 0.0, "start": 0, "end": 0}
    return max(answers, key=lambda answer: answer["score"])
