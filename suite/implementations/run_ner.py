"""transformers' example run_ner.py (version 4.56): `tokenize_and_align_labels` and `compute_metrics`.

Written anew with the same behaviour. `--label_all_tokens` is the contract's strategy `all`. Labels of later tokens
come from a table that is made by replacing `B-` by `I-` in each name. The metric is seqeval's default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from touchstone.suite.implementations.seqeval import Rows, scores, tags

supports = {"scheme": ["IOB2"], "mode": ["lenient"]}


def align_labels(
    labels: Sequence[int], *, word_ids: Sequence[int | None], names: Sequence[str], strategy: str = "all"
) -> list[int]:
    names = list(names)
    b_to_i_label = []
    for number, name in enumerate(names):
        inner = name.replace("B-", "I-")
        b_to_i_label.append(names.index(inner) if name.startswith("B-") and inner in names else number)
    aligned, previous = [], None
    for word in word_ids:
        if word is None:
            aligned.append(-100)
        elif word != previous:
            aligned.append(labels[word])
        else:
            aligned.append(b_to_i_label[labels[word]] if strategy == "all" else -100)
        previous = word
    return aligned


def score_entities(predictions: Rows, *, references: Rows, names: Sequence[str]) -> dict[str, Any]:
    return scores(*tags(predictions, references, names))
