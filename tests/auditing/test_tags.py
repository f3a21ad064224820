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


BILOU = ["O", "B-PER", "I-PER", "L-PER", "U-PER"]
LONG = [
    (["Bob", "Ada", "Paris", "sees"], ["B-PER", "I-PER", "L-PER", "O"]),
    (["Paris", "Bob", "Paris", "."], ["B-PER", "I-PER", "L-PER", "O"]),
    (["Bob", "Rome", "Paris", "."], ["B-PER", "I-PER", "L-PER", "O"]),
    (["Paris", "Ada", "Paris", "and"], ["B-PER", "I-PER", "L-PER", "O"]),
]


def test_an_entity_that_is_closed_twice_is_a_fault_only_if_opening_tags_are_continued() -> None:
    def continued(tags: Sequence[int], words: Sequence[int | None]) -> list[int]:
        """Turn B- into I- behind a word's first token, and copy all other tags."""
        before = [None, *words[:-1]]
        labels = all_tokens(tags, words)
        return [
            2 if label == 1 and word == last else label for label, word, last in zip(labels, words, before, strict=True)
        ]

    given = {"sentences": LONG, "label_of": BILOU.index, "names": BILOU}
    finding = look("subwords-open-no-entity", tagged(continued, **given))
    assert finding.outcome == "fail"
    assert "L- behind the entity's end" in finding.message
    # Where no split word opens an entity, copies may be meant.
    closing = [row for row in LONG if row[0][0] == "Bob"]
    finding = look("subwords-open-no-entity", tagged(all_tokens, **{**given, "sentences": closing}))
    assert finding.outcome == "warn"
    assert "on purpose" in finding.cause


def test_names_of_other_words_for_the_same_types_pass_and_those_of_another_data_set_do_not() -> None:
    names = ["O", "B-person", "I-person", "B-location", "I-location"]
    assert look("label-names-are-the-data-names", tagged(names=names)).outcome == "pass"
    others = ["O", "B-corporation", "I-corporation", "B-product", "I-product"]
    assert look("label-names-are-the-data-names", tagged(names=others)).outcome == "warn"
    turned = ["O", "B-corporation", "B-product", "I-corporation", "I-product"]
    assert look("label-names-are-the-data-names", tagged(names=turned)).outcome == "fail"


@pytest.mark.parametrize(
    ("silent", "cause"),
    [
        (lambda word, count: count > 1, "several tokens have none"),
        (lambda word, count: count == 1, "one token have none"),
        (lambda word, count: word > 0, "only the first word"),
    ],
)
def test_words_that_are_never_labelled_are_named_by_what_they_have_in_common(silent: Any, cause: str) -> None:
    def align(tags: Sequence[int], words: Sequence[int | None]) -> list[int]:
        labels = first_tokens(tags, words)
        return [
            -100 if word is not None and silent(word, list(words).count(word)) else label
            for label, word in zip(labels, words, strict=True)
        ]

    sentences = [
        (["Ada", "Paris", "lovelace", "."], ["B-PER", "B-LOC", "I-LOC", "O"]),
        (["Paris", "Rome", "sees", "Bob", "."], ["B-LOC", "B-LOC", "O", "B-PER", "O"]),
        (["and", "Bob", "Paris", "and", "."], ["O", "B-PER", "I-PER", "O", "O"]),
        ([".", "and", "Paris", "sees", "and"], ["O", "O", "B-PER", "O", "O"]),
        (["Bob", "and", "Paris", "and", "."], ["B-PER", "O", "I-PER", "O", "O"]),
        (["Rome", "and", "Paris", "and", "."], ["I-PER", "O", "B-PER", "O", "O"]),
    ]
    assert look("words-labelled", tagged(first_tokens, sentences=sentences)).outcome == "pass"
    finding = look("words-labelled", tagged(align, sentences=sentences))
    assert finding.outcome == "fail", finding
    assert cause in finding.cause


def test_words_outside_entities_may_have_no_label() -> None:
    def entities_only(tags: Sequence[int], words: Sequence[int | None]) -> list[int]:
        return [-100 if label == 0 and place % 2 else label for place, label in enumerate(first_tokens(tags, words))]

    assert look("words-labelled", tagged(entities_only)).outcome == "pass"
