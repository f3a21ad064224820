"""Checks W10-W13 of docs/contract.md: `answer_positions` and its batched version."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from touchstone.properties.check import check
from touchstone.properties.failure import expect, expect_that
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.windowing import Answered, answered_windows, labelled_span
from touchstone.properties.subject import Subject
from touchstone.stages.ragged import Ragged


def positions(implementation: Subject, case: Answered) -> tuple[int, int]:
    implementation.remark(**case.remarks)
    result: tuple[int, int] = implementation.answer_positions(case.answers, **case.arguments)
    return result


@check("W10", needs="answer_positions", case=answered_windows(least=1, most=1))
def test_a_labelled_span_must_be_the_answer_or_null(implementation: Subject, case: Answered) -> None:
    came = positions(implementation, case)
    ((start, end),) = case.answers
    expected = labelled_span(case.offsets, case.answers) or (case.cls, case.cls)
    if came != (case.cls, case.cls):
        left, right = (case.offsets[at] if 0 <= at < len(case.offsets) else None for at in came)
        expect_that(
            left is not None and right is not None and came[0] <= came[1],
            expected=f"a span of context tokens or {expected}",
            came=came,
            where=f"offsets {case.offsets}",
        )
        assert left is not None
        assert right is not None
        shown = f"the answer is {case.text[start:end]!r}, the span {case.text[left[0] : right[1]]!r}"
        expect(expected, came, where=shown)
    expect(expected, came, where=f"the answer is {case.text[start:end]!r}: characters {start} to {end}")


@check("W11", needs="answer_positions", case=answered_windows(), left=st.integers(0, 3))
def test_no_answer_must_be_labelled_as_cls_at_any_place(implementation: Subject, case: Answered, left: int) -> None:
    padded = case.with_(offsets=[*[None] * left, *case.offsets], cls=case.cls + left)
    none = padded.with_(answers=[])
    expect((padded.cls, padded.cls), positions(implementation, none))
    came = positions(implementation, padded)
    if labelled_span(padded.offsets, padded.answers) is None:
        expect((padded.cls, padded.cls), came, where="no answer is whole in the window")
    else:
        moved = tuple(position + left for position in positions(implementation, case))
        expect(moved, came, where=f"after {left} more positions on the left")


@check("W12", needs="answer_positions", case=answered_windows(least=0, most=3))
def test_the_first_answer_in_the_window_must_be_labelled(implementation: Subject, case: Answered) -> None:
    expected = labelled_span(case.offsets, case.answers) or (case.cls, case.cls)
    expect(expected, positions(implementation, case))


@check("W12", needs="answer_positions", case=answered_windows(least=1, most=1), data=st.data())
def test_an_answer_inside_one_token_must_be_labelled_as_that_token(
    implementation: Subject, case: Answered, data: Any
) -> None:
    real = [pair for pair in case.offsets if pair and pair[0] < pair[1]]
    if not real:
        return
    start = data.draw(st.sampled_from([character for pair in real for character in range(*pair)]))
    one = case.with_(answers=[(start, start + 1)])
    expect(labelled_span(one.offsets, one.answers), positions(implementation, one))


@check(
    "W13",
    needs="answer_positions",
    kind="refusal",
    case=answered_windows(least=0, most=2),
    fault=st.sampled_from(["empty", "backwards", "negative", "cls after", "cls before"]),
)
def test_answer_positions_must_refuse_invalid_input(implementation: Subject, case: Answered, fault: str) -> None:
    wrong = {"empty": (4, 4), "backwards": (4, 2), "negative": (-1, 2)}
    mentions: tuple[object, ...]
    if fault in wrong:
        case = case.with_(answers=[*case.answers, wrong[fault]])
        mentions = wrong[fault]
    else:
        case = case.with_(cls=len(case.offsets) if fault == "cls after" else -1)
        mentions = (case.cls,)
    implementation.expect_refusal("answer_positions", case.answers, mentions=mentions, **case.arguments)


@check("W13", needs="answer_positions", kind="form", case=answered_windows())
def test_answer_positions_must_be_pure(implementation: Subject, case: Answered) -> None:
    lists = {**case.arguments, "offsets": [pair and list(pair) for pair in case.offsets]}
    expect_pure(implementation, "answer_positions", [list(answer) for answer in case.answers], **lists)
    expect_same_for_tuples_and_arrays(
        implementation, "answer_positions", [list(answer) for answer in case.answers], **lists
    )


def column(rows: list[list[Any]], side: int) -> Ragged:
    """Return one side of the pairs of each row, -1 for None."""
    return Ragged.from_lists([[-1 if pair is None else pair[side] for pair in row] for row in rows])


def batch_arguments(cases: list[Answered]) -> tuple[Ragged, dict[str, Any]]:
    """Return the arguments of `answer_positions_batch`."""
    answers: list[list[Any]] = [case.answers for case in cases]
    windows: list[list[Any]] = [case.offsets for case in cases]
    return column(answers, 0), {
        "answer_ends": column(answers, 1),
        "starts": column(windows, 0),
        "ends": column(windows, 1),
        "cls": np.array([case.cls for case in cases], dtype=np.int64),
    }


@check("W13", needs="answer_positions answer_positions_batch", cases=st.lists(answered_windows(), max_size=3))
def test_answer_positions_batch_must_equal_answer_positions(implementation: Subject, cases: list[Answered]) -> None:
    expected = [positions(implementation, case) for case in cases]
    starts, arguments = batch_arguments(cases)
    expect(expected, list(zip(*implementation.answer_positions_batch(starts, **arguments), strict=True)))
    expect_pure(implementation, "answer_positions_batch", starts, **arguments)


@check(
    "W13", needs="answer_positions_batch", kind="refusal", cases=st.lists(answered_windows(), min_size=1, max_size=3)
)
def test_answer_positions_batch_must_refuse_a_cls_outside_the_window(
    implementation: Subject, cases: list[Answered]
) -> None:
    starts, arguments = batch_arguments(cases)
    outside = len(cases[-1].offsets)
    arguments["cls"] = np.array([*arguments["cls"][:-1], outside])
    implementation.expect_refusal("answer_positions_batch", starts, mentions=(outside,), **arguments)
