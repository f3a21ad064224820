"""The column `answers` is checked against the contexts when data is read."""

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


def test_an_answer_starts_at_its_character_of_the_context() -> None:
    answers = answer(("Oslo", 15), ("today", 22)), answer()
    data = read(*answers)
    assert data["answers"][:] == list(answers)
    assert data.features["answers"] == ANSWERS


def test_any_integer_type_and_additional_fields_are_accepted() -> None:
    narrow = {"text": datasets.List(datasets.Value("string")), "answer_start": datasets.List(datasets.Value("int32"))}
    assert read(answer(("Oslo", 15)), features=narrow).features["answers"] == ANSWERS
    more = read(answer(("Oslo", 15)) | {"answer_end": [19]})
    assert more["answers"][:] == [answer(("Oslo", 15))]
    assert more.features["answers"] == ANSWERS


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (answer(("Oslo", 14)), r"row 1: `answers` has the answer 'Oslo' at 14, but the context has ' Osl' there"),
        (answer(("today", 25)), "'today' at 25.*count characters"),  # its start in bytes of UTF-8
        (answer(("", 3)), "'' at 3: give a text"),
        (answer(("Ada", -1)), "'Ada' at -1"),
        (answer((None, 1)), "None at 1"),
        ({"text": ["Ada", "Oslo"], "answer_start": [0]}, r"the texts \['Ada', 'Oslo'\] for the starts \[0\]"),
    ],
)
def test_an_answer_that_is_not_in_its_context_is_an_error_with_row_and_value(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        read(answer(("Ada", 0)), wrong)


def test_a_column_of_another_type_is_refused() -> None:
    with pytest.raises(SourceError, match=r"column 'context' of squad, split train holds .*not answers"):
        read(answer(("Ada", 0)), mapping={"question": "question", "answers": "context"})
