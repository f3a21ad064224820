"""Answers are read from columns of any form, and windows that could lie at two places are not accused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.auditing.samples import collate, look, tokenizer
from touchstone.auditing.finding import Finding
from touchstone.auditing.subject import Split, Subject

CONTEXT = "Ada sees Paris and Rome ."
ASKED = "Bob sees"
ANSWER, BEGIN = "Paris", 9


def finding(probe: str, start: int, end: int, raw: dict[str, Any], *, window: slice = slice(None)) -> Finding:
    """Judge one row with the given labels. Its tokens are [CLS] Bob sees [SEP] Ada sees Par ##is and Rome . [SEP]."""
    tokens = tokenizer()
    context = tokens(CONTEXT, add_special_tokens=False)["input_ids"][window]
    ids = [2, *tokens(ASKED, add_special_tokens=False)["input_ids"], 3, *context, 3]
    row = {"input_ids": ids, "attention_mask": [1] * len(ids), "start_positions": start, "end_positions": end}
    split = Split("train", [row], collate, 1)
    return look(probe, Subject("", "question-answering", None, tokens, train=split, raw=[raw]))


FORMS: dict[str, dict[str, Any]] = {
    "squad": {"question": ASKED, "context": CONTEXT, "answers": {"text": [ANSWER], "answer_start": [BEGIN]}},
    "single": {"question": ASKED, "context": CONTEXT, "answers": {"text": ANSWER, "answer_start": BEGIN}},
    "list": {"q": ASKED, "c": CONTEXT, "answers": [{"text": ANSWER, "answer_start": BEGIN, "id": 5}]},
    "flat": {"id": 3, "q": ASKED, "passage": CONTEXT, "reply": ANSWER, "offset": BEGIN},
}


@pytest.mark.parametrize("form", FORMS)
def test_answers_of_every_form_are_read(form: str) -> None:
    assert finding("spans-hold-the-answer", 6, 7, FORMS[form]).outcome == "pass"
    wrong = finding("spans-hold-the-answer", 6, 8, FORMS[form])
    assert wrong.outcome == "fail"
    assert "'Paris and' instead of 'Paris'" in wrong.message


def test_a_window_that_holds_a_part_of_the_answer_has_no_span() -> None:
    whole = FORMS["squad"]
    cut = slice(0, 3)  # Ada sees Par
    assert finding("cut-answers-have-no-span", 0, 0, whole, window=cut).outcome == "pass"
    assert finding("cut-answers-have-no-span", 6, 6, whole, window=cut).outcome == "fail"


def test_labels_outside_the_row_are_ignored_by_the_loss() -> None:
    whole, cut = FORMS["squad"], slice(0, 3)
    assert finding("cut-answers-have-no-span", 512, 512, whole, window=cut).outcome == "pass"
    assert finding("spans-are-in-order", 6, 512, whole, window=cut).outcome == "warn"


def test_questions_without_an_answer_point_to_a_special_token() -> None:
    none = {"question": ASKED, "context": CONTEXT, "answers": {"text": [], "answer_start": []}}
    rows = [FORMS["squad"], none]
    tokens = tokenizer()
    ids = tokens(ASKED, CONTEXT)["input_ids"]
    made = [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "start_positions": start, "end_positions": end}
        for start, end in ((6, 7), (6, 7))
    ]
    subject = Subject("", "question-answering", None, tokens, train=Split("train", made, collate, 2), raw=rows)
    judged = look("cut-answers-have-no-span", subject)
    assert judged.outcome == "fail"
    assert "1 of 1 windows" in judged.message


def test_an_answer_that_no_window_holds_is_a_warning() -> None:
    lost = finding("answers-lie-in-a-window", 0, 0, FORMS["squad"], window=slice(0, 2))
    assert lost.outcome == "warn"
    assert "max_length" in lost.cause


def test_any_of_several_answers_may_be_meant() -> None:
    several = {"question": ASKED, "context": CONTEXT, "answers": {"text": [ANSWER, "Ada"], "answer_start": [BEGIN, 0]}}
    assert finding("spans-hold-the-answer", 6, 7, several).outcome == "pass"
    assert finding("spans-hold-the-answer", 4, 4, several).outcome == "pass"
    # Only the second answer is in the window: a script that uses the first one rightly labels no answer.
    assert finding("spans-hold-the-answer", 0, 0, several, window=slice(0, 3)).outcome == "pass"
    assert finding("spans-hold-the-answer", 0, 0, several).outcome == "fail"


def windows_finding(*cuts: slice) -> Finding:
    """Judge two questions whose answer is "Paris", each with the same windows of the context, none of them labelled."""
    from datasets import Dataset

    from touchstone.auditing.subject import MapCall

    tokens = tokenizer()
    texts = [(ASKED, CONTEXT), ("Ada sees", CONTEXT)]
    source = Dataset.from_list(
        [{"question": asked, "context": text, "answers": FORMS["squad"]["answers"]} for asked, text in texts]
    )

    def windows(batch: dict[str, Any]) -> dict[str, Any]:
        rows = [
            [2, *tokens(asked, add_special_tokens=False)["input_ids"], 3, *context[cut], 3]
            for asked, text in zip(batch["question"], batch["context"], strict=True)
            for context in [tokens(text, add_special_tokens=False)["input_ids"]]
            for cut in cuts
        ]
        return {
            "input_ids": rows,
            "attention_mask": [[1] * len(row) for row in rows],
            "start_positions": [0] * len(rows),
            "end_positions": [0] * len(rows),
        }

    result = source.map(windows, batched=True, remove_columns=source.column_names)
    call = MapCall(windows, source, result, batched=True, where="train.py:9")
    split = Split("train", result, collate, 2)
    return look("answers-lie-in-a-window", Subject("", "question-answering", None, tokens, train=split, maps=[call]))


def test_answers_between_windows_that_share_no_token_are_a_fault() -> None:
    # The context is Ada sees Par ##is and Rome .
    apart = windows_finding(slice(0, 3), slice(3, 7))
    assert apart.outcome == "fail"
    assert "share no token" in apart.cause


def test_answers_that_are_cut_off_or_lie_between_overlapping_windows_are_a_warning() -> None:
    assert windows_finding(slice(0, 3)).outcome == "warn"
    assert windows_finding(slice(0, 3), slice(2, 7)).outcome == "pass"
