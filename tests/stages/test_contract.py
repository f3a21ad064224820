"""The table of the contract, and the places that are made from it."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

import tests.independent
from tests.support.environment import environment
from touchstone import contract, stages
from touchstone.properties.check import all_checks, ids
from touchstone.properties.failure import Mismatch
from touchstone.properties.returns import shaped
from touchstone.properties.strategies.defaults import shared_defaults

ROOT = Path(__file__).parents[2]


def test_the_ids_of_each_section_are_numbered_from_one_without_a_gap() -> None:
    for letter, found in groupby(ids(), key=lambda id: id[0]):
        numbers = [int(id[1:]) for id in found]
        assert numbers == list(range(1, len(numbers) + 1)), letter


def test_every_section_has_stages_and_checks_in_the_same_order() -> None:
    assert list(dict.fromkeys(stage.section for stage in contract.STAGES)) == list(contract.SECTIONS)
    assert list(dict.fromkeys(id[0] for id in ids())) == list(contract.SECTIONS)


def test_every_check_needs_a_stage_of_its_section() -> None:
    section_of = {stage.name: stage.section for stage in contract.STAGES}
    section_of |= {stage.batched: stage.section for stage in contract.STAGES if stage.batched}

    assert [check.id for check in all_checks() if check.id[0] not in {section_of[name] for name in check.needs}] == []


def test_the_reference_offers_exactly_the_functions_of_the_contract() -> None:
    assert stages.__all__ == list(contract.NAMES)
    assert [name for name in contract.NAMES if not callable(getattr(stages, name, None))] == []
    assert {name for name, value in vars(stages).items() if callable(value)} == set(contract.NAMES)


def test_the_independent_implementation_offers_every_stage_and_no_batched_version() -> None:
    offered = {name for name, value in vars(tests.independent).items() if callable(value)}

    assert offered == {stage.name for stage in contract.STAGES}


def test_an_argument_has_the_same_default_in_every_function() -> None:
    assert shared_defaults()["replacement"] == (0.8, 0.1, 0.1)
    assert shared_defaults()["strategy"] == "all"


def test_the_contract_page_is_current() -> None:
    text = contract.PAGE.read_text(encoding="utf-8")

    assert contract.page(text) == text, "write it with: python -m touchstone.contract"


def test_the_contract_page_describes_every_function_once() -> None:
    text = contract.PAGE.read_text(encoding="utf-8")

    described = re.findall(r"^(?:###|\*) `(\w+)\(", text, flags=re.MULTILINE)
    assert described == list(contract.NAMES)


def test_a_new_check_gets_a_row_with_the_sentence_of_its_test() -> None:
    text = contract.PAGE.read_text(encoding="utf-8")
    shorter = "\n".join(line for line in text.splitlines() if not line.startswith("| A4 |"))

    assert "| A4 | a continuation token must not open an entity | `align_labels` |" in contract.page(shorter)


def test_a_page_that_describes_another_function_is_refused() -> None:
    text = contract.PAGE.read_text(encoding="utf-8") + "\n### `align(labels)`\n"

    with pytest.raises(ValueError, match="describes align, which is not a function of the contract"):
        contract.page(text)


def test_the_readme_gives_the_number_of_checks() -> None:
    counts = re.findall(r"\b(\d+) checks\b", (ROOT / "README.md").read_text(encoding="utf-8"))

    assert counts, "README.md does not say how many checks there are, such as `182 checks`"
    assert {int(count) for count in counts} == {contract.count_checks()}


def test_importing_the_contract_imports_neither_torch_nor_the_stages() -> None:
    source = "import sys, touchstone.contract; print(sorted({'torch', 'touchstone.stages'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", source], env=environment(), cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("id", "problem"), [("Z1", "'Z1'"), ("A0", "'A0'"), ("A", "'A'"), ("", "''"), ("A1b", "A1b")])
def test_an_id_that_no_check_can_have_is_refused(id: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"{problem}.* is not the id of a check"):
        contract.check_key(id)


# Return shapes -------------------------------------------------------------------------------------------------------

WINDOWS = {"input_ids": [[5]], "token_type_ids": [[0]], "offsets": [[[0, 1], None]], "first": [0], "more": 1}

RIGHT: list[tuple[str, Any, Any]] = [
    ("align_labels", [0, -100], [0, -100]),
    ("chunk", {"word_ids": [[0, None]], "input_ids": [[5, 6]]}, {"word_ids": [[0, None]], "input_ids": [[5, 6]]}),
    ("mask_tokens", [[1], [2]], ([1], [2])),
    ("perplexity", 3, 3.0),
    ("perplexity", float("inf"), float("inf")),
    ("answer_positions", [3, 4], (3, 4)),
    ("best_spans", [[0, 1, 2, 3]], [(0, 1, 2, 3.0)]),
    ("make_windows", WINDOWS, WINDOWS | {"offsets": [[(0, 1), None]]}),
]


@pytest.mark.parametrize(("name", "value", "expected"), RIGHT)
def test_a_result_of_the_right_shape_is_returned_with_pairs_as_tuples(name: str, value: Any, expected: Any) -> None:
    assert repr(shaped(name, value)) == repr(expected)


WRONG: list[tuple[str, Any, str, str]] = [
    ("align_labels", [0, 1.5], "a flat sequence of integers", "at [1]: 1.5: "),
    ("align_labels", [0, True], "a flat sequence of integers", "at [1]: True: "),
    ("align_labels", None, "a flat sequence of integers", ""),
    ("align_labels_batch", [[0], [1, "2"]], "a ragged array of integers", "at [1][1]: '2': "),
    ("chunk", {"labels": [[0, 0.5]]}, "a mapping of column to lists of integers", "at ['labels'][0][1]: 0.5: "),
    ("mask_tokens", [[1], [2], [3]], "a pair (input_ids, labels)", ""),
    ("perplexity", float("nan"), "a number that is not NaN", ""),
    ("key_token_weights", [1.0, float("nan")], "a flat sequence of numbers", 'at [1]: float("nan"): '),
    ("answer_positions", [1.0, 2], "a pair of integers (first, last)", "at [0]: 1.0: "),
    ("make_windows", WINDOWS | {"offsets": [[[0, 1, 2]]]}, "a mapping with input_ids", "at ['offsets'][0][0]"),
    ("make_windows", {"input_ids": []}, "a mapping with input_ids", "at ['token_type_ids']: "),
    ("split_sentences", ["a", 1], "a list of texts", "at [1]: 1: "),
]


@pytest.mark.parametrize(("name", "value", "expected", "where"), WRONG)
def test_a_result_of_another_shape_is_refused_with_its_first_wrong_place(
    name: str, value: Any, expected: str, where: str
) -> None:
    with pytest.raises(Mismatch) as caught:
        shaped(name, value)

    assert caught.value.expected.startswith(expected)
    assert caught.value.came.startswith(f"{type(value).__name__}: ")
    assert caught.value.where.startswith(where) if where else caught.value.where == ""
