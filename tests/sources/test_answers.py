"""The column `answers`, checked against its contexts when data is read."""

from __future__ import annotations

from typing import Any

import datasets
import pytest

from touchstone.sources.normalization import ANSWERS, contract_columns
from touchstone.sources.source import SourceError

MAPPING = {"question": "question", "context": "context", "answers": "answers"}
CONTEXT = "Ada met Zoë in Oslo 👍 today."


def read(*answers: dict[str, Any], features: Any = None, mapping: Any = None) -> datasets.Dataset:
    rows = {
        "question": ["Where?"] * len(answers),
        "context": [CONTEXT] * len(answers),
        "answers": list(answers),
    }
    data = datasets.Dataset.from_dict(rows)
    if features is not None:
        data = data.cast_column("answers", features)
    return contract_columns(data, mapping=mapping or MAPPING, tag_names=None, where="squad, split train")


def answer(*pairs: tuple[str | None, int | None]) -> dict[str, Any]:
    return {"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]}


def test_answers_stand_where_they_say_in_characters() -> None:
    answers = answer(("Oslo", 15), ("today", 22)), answer()
    data = read(*answers)
    assert list(answers) == data["answers"][:]
    assert data.features["answers"] == ANSWERS


def test_any_kind_of_integer_and_other_fields_will_do() -> None:
    narrow = {"text": datasets.List(datasets.Value("string")), "answer_start": datasets.List(datasets.Value("int32"))}
    assert read(answer(("Oslo", 15)), features=narrow).features["answers"] == ANSWERS
    more = read(answer(("Oslo", 15)) | {"answer_end": [19]})
    assert [answer(("Oslo", 15))] == more["answers"][:]
    assert more.features["answers"] == ANSWERS


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (answer(("Oslo", 14)), r"row 1: `answers` has the answer 'Oslo' at 14, where the context has ' Osl'"),
        (answer(("today", 25)), "'today' at 25.*count characters"),  # its place in UTF-8's bytes
        (answer(("", 3)), "'' at 3: give its characters"),
        (answer(("Ada", -1)), "'Ada' at -1"),
        (answer((None, 1)), "None at 1"),
        ({"text": ["Ada", "Oslo"], "answer_start": [0]}, r"the texts \['Ada', 'Oslo'\] for the starts \[0\]"),
    ],
)
def test_an_answer_that_is_not_there_is_an_error_with_row_and_value(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(answer(("Ada", 0)), wrong)


def test_a_column_of_another_kind_is_refused() -> None:
    with pytest.raises(SourceError, match=r"column 'context' of squad, split train holds .*not answers"):
        read(answer(("Ada", 0)), mapping={"question": "question", "answers": "context"})
