"""Entities that are given by characters become words and tags."""

from __future__ import annotations

from typing import Any

import pytest

from touchstone.auditing.reading.spans import columns_of_spans, words_and_tags

TEXT = "Ada Lovelace sees Rome."
WORDS = ["Ada", "Lovelace", "sees", "Rome", "."]
TAGS = ["B-PER", "I-PER", "O", "B-LOC", "O"]


@pytest.mark.parametrize(
    "spans",
    [
        [[0, 12, "PER"], [18, 22, "LOC"]],
        [(0, 13, "PER"), (18, 22, "LOC")],  # a space behind the name
        [("PER", 0, 12), ("LOC", 18, 22)],
        [{"start": 0, "end": 12, "label": "PER"}, {"start": 18, "end": 22, "label": "LOC"}],
        [{"start": 0, "end": 12, "labels": ["PER"], "label": ["PER"]}, {"start": 18, "end": 22, "label": ["LOC"]}],
        {"start": [0, 18], "end": [12, 22], "type": ["PER", "LOC"]},
    ],
)
def test_spans_of_every_form_are_read(spans: Any) -> None:
    assert words_and_tags(TEXT, spans) == (WORDS, TAGS)


@pytest.mark.parametrize(
    "spans", [[[0, 2, "PER"]], [[0, 12, "PER"], [4, 12, "PER"]], [[0, "PER"]], "PER", [[3, 3, "X"]]]
)
def test_spans_that_no_tags_can_write_are_left_out(spans: Any) -> None:
    assert words_and_tags(TEXT, spans) is None


def test_columns_are_found_by_what_they_hold() -> None:
    rows = [{"id": 1, "body": TEXT, "found": [[0, 12, "PER"]]}, {"id": 2, "body": "Rome.", "found": []}]
    assert list(columns_of_spans(rows)) == [("body", "found")]
