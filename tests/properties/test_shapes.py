"""Functions for `map`, collators and `compute_metrics` under the checks."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tests.properties import shaped_code as code
from touchstone.properties.check import NotOffered, run_check
from touchstone.properties.failure import CheckFailed
from touchstone.properties.shapes import (
    LETTERS,
    ShapeError,
    TokenClassificationMap,
    letters_tokenizer,
    names_in,
    replaced,
    shaped_as,
    spelled,
)
from touchstone.properties.subject import ImplementationError, load

HERE = "tests.properties.shaped_code"


def failing(ids: str, target: Any, shape: str) -> list[str]:
    """Return the checks that fail on code in a shape."""
    found = []
    for id in ids.split():
        try:
            run_check(id, shaped_as(target, shape), max_examples=40)
        except CheckFailed as failed:
            if failed.kind == "result":
                found.append(id)
        except NotOffered:
            pass
    return found


ALIGNING = "A1 A2 A3 A4 A6 A7 A8 A12 A13"


@pytest.mark.parametrize("right", [code.by_parity, code.by_name, code.first_only], ids=lambda each: each.__name__)
def test_right_functions_for_map_pass(right: Any) -> None:
    assert failing(ALIGNING, right, "map:token-classification") == []


@pytest.mark.parametrize(
    ("wrong", "caught"), [(code.of_the_first_row, "A13"), (code.shifted, "A2")], ids=["the first row", "shifted"]
)
def test_a_wrong_function_for_map_is_caught(wrong: Any, caught: str) -> None:
    assert caught in failing(ALIGNING, wrong, "map:token-classification")


def test_what_a_function_for_map_supports_is_taken_from_its_code() -> None:
    assert TokenClassificationMap(code.first_only).supports["strategy"] == ["first"]
    assert TokenClassificationMap(code.by_parity).supports == {
        "scheme": ["IOB2"], "names": [code.label_names], "strategy": ["all"],
    }  # fmt: skip
    assert "names" not in TokenClassificationMap(code.by_name).supports


def test_collators_pass_and_a_wrong_one_is_caught() -> None:
    assert failing("P1 P2 P3 P4 P6", code.collator, "collator:token-classification") == []
    assert failing("T2 T3 T4 T6", code.seq2seq, "collator:translation") == []
    assert failing("K12", code.causal, "collator:causal-lm") == ["K12"]  # where the end of text also pads
    assert failing("P2 P3", code.zeros, "collator:token-classification") != []


def test_compute_metrics_passes_and_a_wrong_one_is_caught() -> None:
    assert failing("S1 S2 S3 S5 S8", code.compute_metrics, "metrics:token-classification") == []
    assert "S5" in failing("S5", code.exchanged, "metrics:token-classification")


def test_metrics_of_texts_pass_and_a_wrong_one_is_caught() -> None:
    assert failing("B1 B2 B4 B6 B7", code.bleu_metrics, "metrics:translation") == []
    assert failing("R1 R2 R3 R6 R7", code.rouge_metrics, "metrics:summarization") == []
    assert failing("B2", code.bleu_of_padding, "metrics:translation") == ["B2"]


def test_scale_and_rounding_of_a_metric_are_taken_from_what_it_says() -> None:
    assert shaped_as(code.bleu_metrics, "metrics:translation").choices == {"digits": 4}  # type: ignore[attr-defined]
    assert shaped_as(code.rouge_metrics, "metrics:summarization").choices == {}  # type: ignore[attr-defined]


def test_tokenizers_and_names_are_put_back() -> None:
    tokenizer, names = code.tokenizer, list(code.label_names)
    failing("A2", code.by_name, "map:token-classification")
    failing("P2", code.collator, "collator:token-classification")

    assert code.tokenizer is tokenizer
    assert code.collator.tokenizer is tokenizer
    assert code.label_names == names


def test_code_is_read_in_partials_methods_closures_and_defaults() -> None:
    names = ["O", "B-X", "I-X"]

    def enclosing() -> Any:
        def inner(rows: Any) -> Any:
            return names

        return inner

    class Holder:
        def __init__(self) -> None:
            self.names = names

        def method(self, rows: Any) -> Any:
            return self.names

        def __call__(self, rows: Any) -> Any:
            return self.names

    def default(rows: Any, *, tags: Any = tuple(names)) -> Any:
        return tags

    for target in (
        enclosing(),
        Holder().method,
        Holder(),
        default,
        functools.partial(lambda rows, names: names, names=names),
    ):
        assert names_in(target) == tuple(names)
        with replaced(target, lambda value: ["O"] if value in (names, tuple(names)) else value):
            assert target([]) == ["O"]
        assert list(target([])) == names


def test_spelled_words_have_the_tokens_that_were_asked_for() -> None:
    word_ids = [None, 0, 0, 2, None, None]
    words = spelled(word_ids, 3)
    encoding = letters_tokenizer(1, 2)([words], is_split_into_words=True)

    assert words == [LETTERS[0] * 2, "\u200f", LETTERS[2]]
    assert encoding.word_ids(0) == word_ids
    with pytest.raises(NotImplementedError):
        spelled([0, None, 1], 2)


def test_a_shape_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(ShapeError, match="map:token-classification"):
        shaped_as(code.by_name, "map:ner")
    with pytest.raises(ShapeError, match="must be callable, and this is list"):
        shaped_as(code.label_names, "map:token-classification")
    with pytest.raises(ImplementationError, match="is no shape"):
        load(f"{HERE}:by_name", shape="ner")


def test_the_line_to_paste_repeats_the_failure() -> None:
    subject = load(f"{HERE}:of_the_first_row", shape="map:token-classification")
    with pytest.raises(CheckFailed) as caught:
        run_check("A4", subject, shrink=True)

    import_line = caught.value.paste
    assert import_line.startswith(
        f"import {HERE}; from touchstone.properties.shapes import shaped_as; shaped_as({HERE}."
    )
    exec(import_line, {})
