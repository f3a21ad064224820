"""Windows and answers by hand, against transformers' overflowing tokens, and batched against plain on random input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.tiny_source import tiny_tokenizer
from touchstone.stages import answer_positions, answer_positions_batch, make_windows, make_windows_batch
from touchstone.stages.ragged import Ragged

CLS, SEP = 2, 3
BERT = ((CLS, 0), ("question", 0), (SEP, 0), ("context", 1), (SEP, 1))
XLNET = (("context", 0), (SEP, 0), ("question", 1), (SEP, 1), (CLS, 2))
OFFSETS = [(0, 3), (4, 8), (8, 9), (10, 12), (12, 15)]
"""Characters of five tokens, such as those of `The cats! slept`: some neighbours have no blank between them."""


def windows(**changes: Any) -> dict[str, list[Any]]:
    arguments: dict[str, Any] = {"offsets": OFFSETS, "question": [7, 8], "template": BERT, "max_length": 8, "stride": 1}
    return make_windows([10, 11, 12, 13, 14], **arguments | changes)


def test_windows_of_three_tokens_share_one() -> None:
    expected = {
        "input_ids": [[CLS, 7, 8, SEP, 10, 11, 12, SEP], [CLS, 7, 8, SEP, 12, 13, 14, SEP]],
        "token_type_ids": [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1]],
        "offsets": [[None] * 4 + OFFSETS[:3] + [None], [None] * 4 + OFFSETS[2:] + [None]],
        "first": [0, 2],
    }
    assert windows() == expected


def test_the_context_comes_first_if_the_template_puts_it_first() -> None:
    result = windows(template=XLNET)
    assert result["input_ids"][0] == [10, 11, 12, SEP, 7, 8, SEP, CLS]
    assert result["token_type_ids"][0] == [0, 0, 0, 0, 1, 1, 1, 2]


def test_the_last_window_is_the_first_that_reaches_the_end() -> None:
    assert windows(max_length=10)["first"] == [0]
    assert windows(max_length=9)["first"] == [0, 3]
    assert windows(max_length=7, stride=0)["first"] == [0, 2, 4]
    assert windows(max_length=7, stride=1)["first"] == [0, 1, 2, 3]


def test_stride_plus_one_tokens_are_whole_in_a_window_and_stride_plus_two_need_not_be() -> None:
    """The contract's bound is exact: with a stride of 1, no window of three holds tokens 1 to 3 of five."""
    held = [set(range(first, first + 3)) for first in windows()["first"]]
    assert all(any({token, token + 1} <= window for window in held) for token in range(4))
    assert not any({1, 2, 3} <= window for window in held)


def test_windows_equal_transformers_overflowing_tokens() -> None:
    tokenizer = tiny_tokenizer()
    question, context = (
        "ada sees",
        "ada likes new york . grace leaves rio . barbara paints parisville . alan sees oslo .",
    )
    for max_length, stride in ((12, 0), (12, 3), (13, 5), (24, 8), (40, 8)):
        theirs = tokenizer(
            question,
            context,
            max_length=max_length,
            stride=stride,
            truncation="only_second",
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        parts = [tokenizer(text, add_special_tokens=False, return_offsets_mapping=True) for text in (question, context)]
        ours = make_windows(
            parts[1]["input_ids"],
            offsets=parts[1]["offset_mapping"],
            question=parts[0]["input_ids"],
            template=tuple((what, 0) for what, _ in BERT),
            max_length=max_length,
            stride=stride,
        )
        assert ours["input_ids"] == theirs["input_ids"]
        offsets = [
            [pair if which == 1 else None for pair, which in zip(row, theirs.sequence_ids(number), strict=True)]
            for number, row in enumerate(theirs["offset_mapping"])
        ]
        assert offsets == ours["offsets"]


WINDOW = [None, None, (4, 8), (8, 9), (9, 9), (10, 12), None]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(4, 8)], (2, 2)),
        ([(5, 7)], (2, 2)),
        ([(4, 12)], (2, 5)),
        ([(8, 11)], (3, 5)),
        ([(9, 10)], (6, 6)),  # a blank: in the window, and of no token
        ([(3, 8)], (6, 6)),  # it begins before the window
        ([(10, 13)], (6, 6)),  # it ends after the window
        ([(10, 13), (8, 9)], (3, 3)),
        ([], (6, 6)),
    ],
)
def test_answer_positions_finds_the_tokens_of_the_answers_characters(
    answers: list[tuple[int, int]], expected: tuple[int, int]
) -> None:
    assert answer_positions(answers, offsets=WINDOW, cls=6) == expected


def test_a_window_of_tokens_without_characters_holds_no_answer() -> None:
    assert answer_positions([(0, 1)], offsets=[None, (0, 0), (0, 0)], cls=0) == (0, 0)


WRONG_WINDOWS: list[tuple[dict[str, Any], str]] = [
    ({"max_length": 5}, "max_length 5 leaves no room"),
    ({"stride": 3}, "stride is 3: windows with room for 3 tokens"),
    ({"stride": -1, "max_length": 20}, "stride is -1"),
    ({"offsets": OFFSETS[:4]}, "offsets has length 4, context 5"),
    ({"template": BERT[:3]}, r"template names \['question'\]"),
    ({"template": (*BERT, ("context", 1))}, "exactly one 'question'"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_WINDOWS)
def test_make_windows_and_its_batched_version_refuse_invalid_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        windows(**changes)
    pairs = changes.get("offsets", OFFSETS)
    with pytest.raises(ValueError, match=message):
        make_windows_batch(
            Ragged.from_lists([[10, 11, 12, 13, 14]]),
            starts=Ragged.from_lists([[start for start, _ in pairs]]),
            ends=Ragged.from_lists([[end for _, end in pairs]]),
            questions=Ragged.from_lists([[7, 8]]),
            context_of=np.array([0]),
            template=changes.get("template", BERT),
            max_length=changes.get("max_length", 8),
            stride=changes.get("stride", 1),
        )


@pytest.mark.parametrize(
    ("answers", "cls", "message"),
    [
        ([(1, 2), (3, 3)], 0, r"answers\[1\] is \(3, 3\)"),
        ([(-1, 2)], 0, r"answers\[0\] is \(-1, 2\)"),
        ([(1, 2)], 7, "cls is 7: the window has the tokens 0 to 6"),
    ],
)
def test_answer_positions_and_its_batched_version_refuse_invalid_input(answers: Any, cls: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answer_positions(answers, offsets=WINDOW, cls=cls)
    sides = [Ragged.from_lists([[-1 if pair is None else pair[side] for pair in WINDOW]]) for side in (0, 1)]
    with pytest.raises(ValueError, match=f"row 0: {message}"):
        answer_positions_batch(
            Ragged.from_lists([[start for start, _ in answers]]),
            answer_ends=Ragged.from_lists([[end for _, end in answers]]),
            starts=sides[0],
            ends=sides[1],
            cls=np.array([cls]),
        )


def test_make_windows_batch_names_a_missing_context() -> None:
    empty = Ragged.from_lists([[]])
    with pytest.raises(ValueError, match=r"context_of\[1\] is 1: there are 1 contexts"):
        make_windows_batch(
            empty,
            starts=empty,
            ends=empty,
            questions=Ragged.from_lists([[7], [8]]),
            context_of=np.array([0, 1]),
            template=BERT,
            max_length=8,
            stride=1,
        )


@pytest.mark.parametrize("template", [BERT, XLNET])
@pytest.mark.parametrize(("max_length", "stride"), [(9, 0), (12, 3), (64, 20)])
def test_the_batched_versions_equal_the_plain_stages_on_random_input(
    template: Any, max_length: int, stride: int
) -> None:
    random = np.random.default_rng(max_length)
    contexts = [random.integers(10, 99, size=size).tolist() for size in random.integers(0, 60, size=12)]
    begins = [np.cumsum(random.integers(0, 4, size=len(row))).tolist() for row in contexts]
    stops = [[start + int(random.integers(0, 3)) for start in row] for row in begins]
    questions = [random.integers(10, 99, size=size).tolist() for size in random.integers(0, 3, size=30)]
    about = random.integers(0, len(contexts), size=len(questions))
    options: dict[str, Any] = {"template": template, "max_length": max_length, "stride": stride}
    batched: Any = make_windows_batch(
        Ragged.from_lists(contexts),
        starts=Ragged.from_lists(begins),
        ends=Ragged.from_lists(stops),
        questions=Ragged.from_lists(questions),
        context_of=about,
        **options,
    )
    row = 0
    for number, question in enumerate(questions):
        context = about[number]
        pairs = list(zip(begins[context], stops[context], strict=True))
        plain = make_windows(contexts[context], offsets=pairs, question=question, **options)
        for ids, types, offsets, first in zip(*plain.values(), strict=True):
            assert (
                batched["input_ids"][row].tolist(),
                batched["token_type_ids"][row].tolist(),
                batched["first"][row],
                batched["example"][row],
            ) == (ids, types, first, number)
            sides = zip(batched["starts"][row].tolist(), batched["ends"][row].tolist(), strict=True)
            assert [None if start < 0 else (start, end) for start, end in sides] == offsets
            row += 1
    assert len(batched["example"]) == row
