"""Labels of tokens are judged under the convention that the run itself shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.auditing.samples import NAMES, SENTENCES, all_tokens, first_tokens, look, tagged
from touchstone.auditing.reading.tags import entities


def test_entities_are_read_in_every_scheme() -> None:
    expected = {("PER", 0, 1), ("LOC", 2, 2), ("LOC", 3, 3)}
    assert entities(["B-PER", "I-PER", "B-LOC", "B-LOC", "O"]) == expected
    assert entities(["I-PER", "I-PER", "I-LOC", "B-LOC", "O"]) == expected
    assert entities(["B-PER", "L-PER", "U-LOC", "U-LOC", "O"]) == expected
    assert entities(["B-PER", "E-PER", "S-LOC", "S-LOC", "O"]) == expected


def test_tags_may_be_renumbered_and_merged() -> None:
    assert look("labels-follow-tags", tagged(label_of=lambda tag: 4 - NAMES.index(tag), names=None)).outcome == "pass"
    merged = tagged(label_of=lambda tag: int(tag != "O"), names=["O", "NAME"])
    assert look("labels-follow-tags", merged).outcome == "pass"
    assert look("label-names-are-the-data-names", merged).outcome == "pass"


def test_tags_may_be_spelt_in_another_scheme() -> None:
    # IOB1 in the data: B- only between neighbours of one type. The labels are IOB2.
    iob1 = [(words, [tag.replace("B-", "I-") for tag in tags]) for words, tags in SENTENCES]
    gold = {" ".join(words): [NAMES.index(tag) for tag in tags] for words, tags in SENTENCES}
    from datasets import Dataset

    subject = tagged()
    call = subject.maps[0]
    rows = [{"words": words, "tags": tags} for words, tags in iob1]
    subject.raw = Dataset.from_list(rows)
    subject.maps = []
    assert len(gold) == len(call.result)
    assert look("labels-follow-tags", subject).outcome == "pass"
    assert look("tags-form-a-scheme", subject).outcome in ("pass", "warn")


def test_a_word_without_a_token_that_shifts_the_labels_is_named() -> None:
    # A word of spaces has no token. A script that counts words by tokens gives its tag to the next word.
    odd = [([words[0], " ", *words[1:]], [tags[0], "O", *tags[1:]]) for words, tags in SENTENCES]

    def counted(tags: Sequence[int], words: Sequence[int | None]) -> list[int]:
        labels, seen = [], -1
        last = None
        for word in words:
            if word is None:
                labels.append(-100)
                continue
            seen += word != last
            last = word
            labels.append(tags[seen])
        return labels

    finding = look("labels-follow-tags", tagged(counted, sentences=odd))
    assert finding.outcome == "fail"
    assert "a word without a token" in finding.cause


def entity_metric(predictions: Any, labels: Any) -> dict[str, float]:
    guessed, gold = np.argmax(predictions, -1), np.asarray(labels)
    names = [[NAMES[label] for label in row if label != -100] for row in gold]
    found = [
        [NAMES[one] for one, label in zip(row, keep, strict=True) if label != -100]
        for row, keep in zip(guessed, gold, strict=True)
    ]
    hits = sum(len(entities(a) & entities(b)) for a, b in zip(names, found, strict=True))
    return {"f1": 2 * hits / sum(len(entities(each)) for each in (*names, *found))}


def token_metric(predictions: Any, labels: Any) -> dict[str, float]:
    gold = np.asarray(labels)
    return {"accuracy": float((np.argmax(predictions, -1) == gold)[gold != -100].mean())}


@pytest.mark.parametrize(("metric", "outcome"), [(None, "warn"), (token_metric, "warn"), (entity_metric, "fail")])
def test_opening_tags_on_every_token_are_a_fault_only_if_entities_are_counted(metric: Any, outcome: str) -> None:
    finding = look("subwords-open-no-entity", tagged(all_tokens, compute_metrics=metric))
    assert finding.outcome == outcome
    assert "labelled B-" in finding.message


def test_one_convention_must_hold_for_all_words() -> None:
    def mixed(tags: Sequence[int], words: Sequence[int | None]) -> list[int]:
        """Turn B-PER into I-PER behind the first token, and leave B-LOC."""
        before = [None, *words[:-1]]
        labels = all_tokens(tags, words)
        return [
            2 if label == 1 and word == last else label for label, word, last in zip(labels, words, before, strict=True)
        ]

    sentences = [*SENTENCES, (["lovelace", "sees", "Paris"], ["B-PER", "O", "B-LOC"])]
    assert look("subwords-open-no-entity", tagged(mixed, sentences=sentences)).outcome == "fail"


def test_only_first_tokens_and_only_last_tokens_are_conventions() -> None:
    def last_tokens(tags: Sequence[int], words: Sequence[int | None]) -> list[int]:
        return first_tokens(tags, words[::-1])[::-1]

    for align in (first_tokens, last_tokens):
        assert look("labels-follow-tags", tagged(align)).outcome == "pass"
        assert look("subwords-open-no-entity", tagged(align)).outcome == "pass"


def test_default_label_names_are_a_warning() -> None:
    finding = look("label-names-are-the-data-names", tagged(names=[f"LABEL_{number}" for number in range(5)]))
    assert finding.outcome == "warn"
    assert "id2label" in finding.cause
