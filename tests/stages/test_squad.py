"""SQuAD's scores by hand and against torchmetrics' copy of the official script."""

from __future__ import annotations

import random
from typing import Any

import pytest

from touchstone.stages import squad_scores
from touchstone.stages.squad import normalize_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Virgin\tMary.", "virgin mary"),
        ("a U.S. e-mail, an answer", "us email answer"),
        ("theatre and banana", "theatre and banana"),
        ("“the” cat", "“ ” cat"),  # quotation marks that are not ASCII stay
        ("a\u0301", "\u0301"),  # a combining mark is no letter to the script: the a before it is an article
        ("A an THE !?", ""),
        ("Straße", "straße"),
    ],
)
def test_texts_are_normalized_as_in_the_official_script(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        ("Saint Bernadette Soubirous", ["Saint Bernadette Soubirous"], 100, 100),
        ("Bernadette Soubirous", ["Saint Bernadette Soubirous"], 0, 80),  # P 1, R 2/3
        ("the cat cat", ["cat cat dog"], 0, 80),  # P 2/2, R 2/3
        ("cat", ["dog", "The cat!"], 100, 100),
        ("cat dog", ["cat", "bird dog cat"], 0, 80),
        ("", [], 100, 100),
        ("the", [], 100, 100),
        ("cat", [], 0, 0),
        ("", ["cat"], 0, 0),
        ("the", ["a", "cat"], 100, 100),
    ],
)
def test_squad_scores_equal_a_count_by_hand(prediction: str, references: list[str], exact: float, f1: float) -> None:
    came = squad_scores([prediction], references=[references])
    assert (exact, pytest.approx(f1), 1) == (came["exact_match"], came["f1"], came["number"])


def test_scores_are_the_mean_over_examples() -> None:
    came = squad_scores(["cat", "dog", ""], references=[["cat"], ["cat"], []])
    assert (came["exact_match"], came["f1"], came["number"]) == (pytest.approx(200 / 3), pytest.approx(200 / 3), 3)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "no examples"),
        (["cat"], [], "1 predictions for 0 lists of references"),
        (["cat"], ["cat"], r"references\[0\] is the text 'cat'"),
    ],
)
def test_squad_scores_refuses_invalid_input(predictions: Any, references: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        squad_scores(predictions, references=references)


def test_squad_scores_equal_those_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.text")
    draw = random.Random(4)
    words = ["the", "a", "an", "cat", "Cat", "U.S.", "theatre", "“the”", "3.14", "—", "dog", "answer,"]
    texts = [[" ".join(draw.choices(words, k=draw.randint(1, 5))) for _ in range(4)] for _ in range(300)]
    # torchmetrics copies v1.1, where every example has an answer; texts without words are covered by the cases above.
    rows = [row for row in texts if all(normalize_answer(text) for text in row)]
    predictions = [{"id": str(i), "prediction_text": row[0]} for i, row in enumerate(rows)]
    target = [{"id": str(i), "answers": {"text": row[1:], "answer_start": [0] * 3}} for i, row in enumerate(rows)]
    expected = functional.squad(predictions, target)
    came = squad_scores([row[0] for row in rows], references=[row[1:] for row in rows])

    assert len(rows) > 200
    # torchmetrics sums some 300 terms of up to 1 in single precision, in percent.
    assert came["exact_match"] == pytest.approx(float(expected["exact_match"]), rel=1e-5)
    assert came["f1"] == pytest.approx(float(expected["f1"]), rel=1e-5)
