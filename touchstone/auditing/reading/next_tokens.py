"""Rows of causal language models beside their labels, and where a label stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.reading.pairs import Pair, collated_pairs, labelled, observed_pairs, rows_of_split
from touchstone.auditing.subject import IGNORED, Batch, Split, Subject

ROWS = 64


def pairs_in(subject: Subject, split: Split) -> list[Pair]:
    """Return some rows of a split beside their collated form."""

    def make() -> list[Pair]:
        try:
            rows = rows_of_split(split, ROWS)
        except NotChecked:
            if not split.observed:
                raise
            return observed_pairs(split)
        pairs = collated_pairs(split, rows)
        # A loop may make labels itself, behind the collator.
        return observed_pairs(split) if split.observed and not labelled(pairs) else pairs

    return subject.once(f"pairs of {split.name}", make)


def labelled_pairs(subject: Subject) -> list[Pair]:
    """Return training rows that have a label for each token."""
    pairs = [pair for pair in pairs_in(subject, subject.need("train")) if len(pair.labels) == len(pair.ids)]
    if not any(each != IGNORED for pair in pairs for each in pair.labels):
        raise NotChecked("batches have no labels, or not one for each token")
    return pairs


def data_shift(pairs: Sequence[Pair]) -> int:
    """Return how many places before its token a label stands: 0, or 1 where the data is shifted already.

    Raises:
        NotChecked: labels are not the tokens of the row.
    """
    counts: Counter[int] = Counter()
    total = 0
    for pair in pairs:
        for place, label in enumerate(pair.labels):
            if label == IGNORED:
                continue
            total += 1
            for shift in (0, 1, 2, -1):
                if 0 <= place + shift < len(pair.ids) and pair.ids[place + shift] == label:
                    counts[shift] += 1
    shift, matches = counts.most_common(1)[0] if counts else (0, 0)
    # The last label of a row that is shifted has no token in the row.
    if not total or matches < 0.8 * (total - len(pairs)):
        raise NotChecked("labels are not the tokens of the row, moved or not: what they mean is not known")
    return shift


def batch_of_one(split: Split) -> Batch:
    """Return a batch of one training row, or the first that was observed."""
    if split.observed:
        return split.batch()
    return split.batch(rows_of_split(split, 1))
