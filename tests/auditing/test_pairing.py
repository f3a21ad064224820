"""Targets are looked up among those of all source rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.auditing.samples import collate, look, tokenizer
from touchstone.auditing.finding import Finding
from touchstone.auditing.subject import MapCall, Row, Split, Subject

TEXTS = [
    ("Ada sees Bob .", "Bob sees Ada and Rome ."),
    ("Rome and Paris .", "Paris sees Rome . Ada"),
    ("Bob and Ada .", "and Ada sees Bob . ."),
    ("Paris sees Rome .", "Rome Rome and Paris ."),
    ("Ada and Paris .", ". sees Bob Bob Bob"),
    ("Rome sees Ada .", "Ada Ada Ada and Bob"),
]


def finding(move: Callable[[list[list[int]]], list[list[int]]]) -> Finding:
    """Judge rows whose labels are those of the given order."""
    from datasets import Dataset

    tokens = tokenizer()
    source = Dataset.from_list([{"source": a, "target": b} for a, b in TEXTS])

    def encode(rows: dict[str, list[str]]) -> Row:
        encoded = tokens(rows["source"])
        return {**encoded, "labels": move(tokens(text_target=rows["target"])["input_ids"])}

    result = source.map(encode, batched=True, remove_columns=["source", "target"])
    call = MapCall(encode, source, result, batched=True, where="train.py:5")
    split = Split("train", result, collate, 2)
    return look("target-of-its-source", Subject("", "translation", None, tokens, train=split, maps=[call]))


def test_labels_of_their_own_source_pass_also_if_they_are_cut() -> None:
    assert finding(lambda labels: labels).outcome == "pass"
    assert finding(lambda labels: [each[:1] + each[1:4] + each[-1:] for each in labels]).outcome != "fail"


@pytest.mark.parametrize(
    ("move", "cause"),
    [
        (lambda labels: labels[1:] + labels[:1], "row 1 after it"),
        (
            lambda labels: [labels[each] for each in (3, 5, 0, 4, 2, 1)][: len(labels)] if len(labels) > 1 else labels,
            "apart",
        ),
    ],
)
def test_labels_of_other_rows_are_a_fault(move: Callable[[list[list[int]]], list[list[int]]], cause: str) -> None:
    found = finding(move)
    assert found.outcome == "fail"
    assert cause in found.cause


def test_labels_that_are_no_column_are_not_judged() -> None:
    assert finding(lambda labels: [each[::-1] for each in labels]).outcome == "not-checked"


def test_the_next_turn_of_a_dialogue_is_no_target_of_another_row() -> None:
    from datasets import Dataset

    tokens = tokenizer()
    source = Dataset.from_list(
        [{"speaker": "Ada" if n % 2 else "Bob", "turn": text} for n, (text, _) in enumerate(TEXTS)]
    )

    def encode(rows: dict[str, list[str]]) -> Row:
        turns = rows["turn"]
        following = [TEXTS[[text for text, _ in TEXTS].index(turn) - len(TEXTS) + 1][0] for turn in turns]
        return {**tokens(turns), "labels": tokens(text_target=following)["input_ids"]}

    result = source.map(encode, batched=True, remove_columns=["speaker", "turn"])
    call = MapCall(encode, source, result, batched=True)
    split = Split("train", result, collate, 2)
    found = look("target-of-its-source", Subject("", "translation", None, tokens, train=split, maps=[call]))
    assert found.outcome == "not-checked"
