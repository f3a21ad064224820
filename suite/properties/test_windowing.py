"""Checks W1-W9 of docs/contract.md: `make_windows` and its batched version (and W12 in any template)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from touchstone.properties.check import check
from touchstone.properties.failure import expect, expect_that
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.windowing import (
    CLS,
    FIRST_OF_CONTEXT,
    Windowing,
    labelled_span,
    shared_windowings,
    windowings,
)
from touchstone.properties.subject import Subject
from touchstone.stages.ragged import Ragged

Windows = dict[str, Any]
Pair = tuple[int, int]


def windows_of(implementation: Subject, case: Windowing) -> Windows:
    implementation.remark(**case.remarks)
    result: Windows = implementation.make_windows(case.context, **case.arguments)
    rows = {name: len(column) for name, column in result.items()}
    expect_that(len(set(rows.values())) == 1 and result["first"], expected="one row a window or more", came=rows)
    return result


def held(row: list[int]) -> list[int]:
    """Return the index in the context of each context token of a window. It follows from the id."""
    return [token - FIRST_OF_CONTEXT for token in row if token >= FIRST_OF_CONTEXT]


def starts_of_windows(case: Windowing) -> list[int]:
    """The first window and every further one that is needed: those before which the context has not been read to its
    end."""
    size, step = len(case.offsets), case.room - case.stride
    return [start for start in range(0, max(size, 1), max(step, 1)) if start == 0 or start - step + case.room < size]


@check("W1", needs="make_windows", case=windowings())
def test_the_windows_must_cover_the_context_and_share_the_stride_with_their_neighbours(
    implementation: Subject, case: Windowing
) -> None:
    parts = [held(row) for row in windows_of(implementation, case)["input_ids"]]
    read = list(parts[0])
    for before, part in pairwise(parts):
        shared = [index for index in part if index in before]
        expect_that(
            shared == part[: case.stride] == before[len(before) - case.stride :],
            expected=f"neighbours that share {case.stride} tokens",
            came=f"context tokens {before} and {part}",
        )
        read += part[case.stride :]
    expect(list(range(len(case.offsets))), read, where=f"context tokens by window: {parts}")


@check("W2", needs="make_windows", case=windowings())
def test_windows_must_have_the_full_length_except_the_last(implementation: Subject, case: Windowing) -> None:
    sizes = [len(row) for row in windows_of(implementation, case)["input_ids"]]
    full = all(size == case.max_length for size in sizes[:-1]) and sizes[-1] <= case.max_length
    expect_that(full, expected=f"windows of {case.max_length} tokens, the last of at most as many", came=sizes)
    expect(len(starts_of_windows(case)), len(sizes), where="number of windows")


@check("W3", needs="make_windows", case=windowings())
def test_every_window_must_follow_the_template(implementation: Subject, case: Windowing) -> None:
    came = windows_of(implementation, case)
    for number, (ids, types) in enumerate(zip(came["input_ids"], came["token_type_ids"], strict=True)):
        context = [token for token in ids if token >= FIRST_OF_CONTEXT]
        pieces = [
            (context if what == "context" else case.question if what == "question" else [what], type_id)
            for what, type_id in case.template
        ]
        expect([token for piece, _ in pieces for token in piece], ids, where=f"ids of window {number}")
        expect([type_id for piece, type_id in pieces for _ in piece], types, where=f"types of window {number}")


@check("W4", needs="make_windows", case=windowings())
def test_offsets_must_be_none_exactly_outside_the_context(implementation: Subject, case: Windowing) -> None:
    came = windows_of(implementation, case)
    for number, (ids, offsets, first) in enumerate(zip(came["input_ids"], came["offsets"], came["first"], strict=True)):
        expected = [case.offsets[t - FIRST_OF_CONTEXT] if t >= FIRST_OF_CONTEXT else None for t in ids]
        expect(expected, offsets, where=f"offsets of window {number}")
        expect(held(ids)[0] if held(ids) else 0, first, where=f"first of window {number}")


@check("W5", needs="make_windows", case=windowings(), slack=st.integers(0, 3), stride=st.integers(0, 50))
def test_a_context_that_is_empty_or_fits_must_make_one_window(
    implementation: Subject, case: Windowing, slack: int, stride: int
) -> None:
    for offsets in (case.offsets, []):
        room = max(len(offsets) + slack, 1)
        fits = case.with_(offsets=offsets, room=room, stride=stride)
        came = windows_of(implementation, fits)
        expect([0], came["first"], where="one window, from the first token of the context")
        expect(fits.context, [token for token in came["input_ids"][0] if token >= FIRST_OF_CONTEXT])


@check("W6", needs="make_windows answer_positions", case=windowings(least=2), data=st.data())
def test_every_run_of_at_most_stride_plus_one_tokens_must_be_whole_in_a_window(
    implementation: Subject, case: Windowing, data: Any
) -> None:
    real = [index for index, pair in enumerate(case.offsets) if pair[0] < pair[1]]
    if not real:
        return
    came = windows_of(implementation, case)
    parts = [held(row) for row in came["input_ids"]]
    for first in range(len(case.offsets) - case.stride):
        run = {first, first + case.stride}
        expect_that(any(run <= set(part) for part in parts), expected=f"a window with tokens {run}", came=parts)
    first = data.draw(st.sampled_from(real))
    last = max(index for index in real if index <= first + data.draw(st.integers(0, case.stride)))
    whole = [number for number, part in enumerate(parts) if {first, last} <= set(part)]
    expect_that(bool(whole), expected=f"tokens {first} to {last} of the context in one window", came=parts)
    answer = (case.offsets[first][0], case.offsets[last][1])
    for number in whole:
        offsets = came["offsets"][number]
        cls = len(offsets) - 1 if offsets[-1] is None else 0
        expected = labelled_span(offsets, [answer]) or (cls, cls)
        expect(expected, implementation.answer_positions([answer], offsets=offsets, cls=cls))


@check(
    "W7",
    needs="make_windows",
    kind="refusal",
    case=windowings(least=1),
    fault=st.sampled_from(["room", "stride", "negative", "lengths", "question", "context", "neither"]),
    extra=st.integers(0, 3),
)
def test_make_windows_must_refuse_invalid_input(
    implementation: Subject, case: Windowing, fault: str, extra: int
) -> None:
    mentions: tuple[object, ...] = ()
    if fault == "room":
        case = case.with_(room=-extra)
        mentions = (max(case.max_length, 0),)
    elif fault == "stride":
        if len(case.offsets) < 2:
            return
        room = min(case.room, len(case.offsets) - 1)
        case = case.with_(room=room, stride=room + extra)
        mentions = (case.stride,)
    elif fault == "negative":
        case = case.with_(stride=-1 - extra)
        mentions = (case.stride,)
    elif fault in ("question", "context"):
        case = case.with_(template=(*case.template, (fault, 0)))
    elif fault == "neither":
        case = case.with_(template=tuple(pair for pair in case.template if pair[0] != "context"))
    arguments = case.arguments
    if fault == "lengths":
        arguments["offsets"] = [*case.offsets, (0, 1)]
        mentions = (len(case.offsets),)
    else:
        arguments["max_length"] = max(arguments["max_length"], 40 if fault in ("question", "context", "neither") else 0)
    implementation.expect_refusal("make_windows", case.context, mentions=mentions, **arguments)


@check("W8", needs="make_windows", kind="form", case=windowings())
def test_make_windows_must_be_pure(implementation: Subject, case: Windowing) -> None:
    lists = {**case.arguments, "offsets": [list(pair) for pair in case.offsets]}
    expect_pure(implementation, "make_windows", case.context, **lists)


@check("W8", needs="make_windows", kind="form", case=windowings())
def test_make_windows_must_accept_tuples_and_arrays(implementation: Subject, case: Windowing) -> None:
    lists = {**case.arguments, "offsets": [list(pair) for pair in case.offsets]}
    expect_same_for_tuples_and_arrays(implementation, "make_windows", case.context, **lists)


@check("W9", needs="make_windows make_windows_batch", drawn=shared_windowings())
def test_make_windows_batch_must_equal_make_windows(
    implementation: Subject, drawn: tuple[list[Windowing], list[int]]
) -> None:
    cases, about = drawn
    contexts = {number: case for case, number in zip(cases, about, strict=True)}
    order = sorted(contexts)
    expected: dict[str, list[Any]] = {name: [] for name in ("input_ids", "token_type_ids", "offsets", "first")}
    example = []
    for number, case in enumerate(cases):
        came = windows_of(implementation, case)
        example += [number] * len(came["first"])
        for name, rows in expected.items():
            rows.extend(came[name])
    arguments = {
        "starts": Ragged.from_lists([[start for start, _ in contexts[n].offsets] for n in order]),
        "ends": Ragged.from_lists([[end for _, end in contexts[n].offsets] for n in order]),
        "questions": Ragged.from_lists([case.question for case in cases]),
        "context_of": np.array([order.index(number) for number in about], dtype=np.int64),
        "template": cases[0].template,
        "max_length": cases[0].max_length,
        "stride": cases[0].stride,
    }
    ids = Ragged.from_lists([contexts[number].context for number in order])
    batched = implementation.make_windows_batch(ids, **arguments)
    offsets = [
        [None if start < 0 else (start, end) for start, end in zip(*rows, strict=True)]
        for rows in zip(batched.pop("starts"), batched.pop("ends"), strict=True)
    ]
    expect({**expected, "example": example}, {**batched, "offsets": offsets})
    expect_pure(implementation, "make_windows_batch", ids, **arguments)


@check(
    "W9",
    needs="make_windows_batch",
    kind="refusal",
    case=windowings(least=2),
    fault=st.sampled_from(["room", "stride", "context"]),
)
def test_make_windows_batch_must_refuse_an_invalid_row(implementation: Subject, case: Windowing, fault: str) -> None:
    size = len(case.offsets)
    if fault == "stride" and size < 2:
        return
    if fault == "room":
        case = case.with_(room=0)
    elif fault == "stride":
        case = case.with_(room=1, stride=1)
    short = list(case.question) if fault != "room" else []
    arguments: dict[str, Any] = {
        "starts": Ragged.from_lists([[], [start for start, _ in case.offsets]]),
        "ends": Ragged.from_lists([[], [end for _, end in case.offsets]]),
        "questions": Ragged.from_lists([short, case.question]),
        "context_of": np.array([0, 2 if fault == "context" else 1]),
        "template": case.template,
        "max_length": case.max_length,
        "stride": case.stride,
    }
    implementation.expect_refusal("make_windows_batch", Ragged.from_lists([[], case.context]), **arguments)


@check("W12", needs="make_windows answer_positions", case=windowings(), answer=st.tuples(st.integers(0, 9)))
def test_answers_must_be_labelled_in_any_template(implementation: Subject, case: Windowing, answer: tuple[int]) -> None:
    for ids, offsets in zip(*(windows_of(implementation, case)[n] for n in ("input_ids", "offsets")), strict=True):
        cls = ids.index(CLS) if CLS in ids else 0
        spans = [(answer[0], answer[0] + 3)]
        if offsets:
            expected = labelled_span(offsets, spans) or (cls, cls)
            expect(expected, implementation.answer_positions(spans, offsets=offsets, cls=cls))
