"""The Hugging Face course, section 7.2 (15 April 2026): `align_labels_with_tokens` and `compute_metrics`.

Written anew with the same behaviour. The section's labels are those of CoNLL-2003: O is 0, B-X is odd, and I-X is the
next number. A later token of a word with an odd label gets the next label.

`compute_metrics` calls seqeval in its default mode, which for IOB2 is what the contract calls `lenient`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from touchstone.suite.implementations.seqeval import Rows, scores, tags


def is_alternating(names: Sequence[str]) -> bool:
    """Return whether the names are O, B-X, I-X, B-Y, I-Y and so on."""
    pairs = list(zip(names[1::2], names[2::2], strict=False))
    return (
        names[:1] == ["O"]
        and len(names) == 1 + 2 * len(pairs)
        and all(b[:2] == "B-" and i == f"I-{b[2:]}" for b, i in pairs)
    )


supports = {
    "scheme": ["IOB2"],
    "mode": ["lenient"],
    "strategy": ["all"],
    "align_labels": {"names": is_alternating},
}


def align_labels(labels: Sequence[int], *, word_ids: Sequence[int | None]) -> list[int]:
    aligned, current = [], None
    for word in word_ids:
        if word is None:
            aligned.append(-100)
        elif word != current:
            aligned.append(labels[word])
        else:
            label = labels[word]
            aligned.append(label + 1 if label % 2 == 1 else label)
        current = word
    return aligned


def score_entities(predictions: Rows, *, references: Rows, names: Sequence[str]) -> dict[str, Any]:
    return scores(*tags(predictions, references, names))
