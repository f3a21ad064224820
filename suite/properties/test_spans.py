"""Checks N1-N11 of docs/contract.md: `best_spans`, `pick_answer` and their batched versions."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from touchstone.properties.check import check
from touchstone.properties.domain import choice
from touchstone.properties.failure import expect, expect_that
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.answers import (
    LEVELS,
    TEXT,
    Scored,
    Span,
    long_windows,
    pointed_windows,
    scored_windows,
)
from touchstone.properties.subject import Subject
from touchstone.stages.ragged import Ragged

Answer = dict[str, Any]


def spans(implementation: Subject, case: Scored) -> list[Span]:
    result: list[Span] = implementation.best_spans(case.start_logits, **case.logits, **case.limits)
    return result


def answer(implementation: Subject, case: Scored, **more: Any) -> Answer:
    came: Answer = implementation.pick_answer(
        case.start_logits, **case.logits, context=case.context, **case.length, **more
    )
    expect_that(
        came.keys() >= {"text", "start", "end", "score"}, expected="text, start, end and score", came=f"{sorted(came)}"
    )
    return {name: came[name] for name in ("text", "start", "end", "score")}


def nothing(score: float) -> Answer:
    return {"text": "", "start": 0, "end": 0, "score": score}


def as_text(case: Scored, span: Span) -> Answer:
    window, first, last, score = span
    left, right = case.offsets[window][first], case.offsets[window][last]
    assert left is not None
    assert right is not None
    return {"text": case.context[left[0] : right[1]], "start": left[0], "end": right[1], "score": score}


def expect_answer(best: list[Answer], came: Answer, *, where: str = "") -> None:
    """Require the first of the best answers; any of them, if the implementation declares so."""
    __tracebackhide__ = True
    if choice("ties") == "first" or len(best) == 1:
        expect(best[0], came, where=where)
    else:
        expect_that(came in best, expected=f"one of {best}", came=came, where=where)


@check("N1", needs="best_spans", case=scored_windows())
def test_an_answer_must_be_a_run_of_context_tokens_of_at_most_the_length(implementation: Subject, case: Scored) -> None:
    for window, first, last, _ in spans(implementation, case):
        inside = 0 <= window < len(case.offsets) and all(0 <= at < len(case.offsets[window]) for at in (first, last))
        ends = [case.offsets[window][at] for at in (first, last)] if inside else [None]
        expect_that(
            all(pair is not None and pair[0] < pair[1] for pair in ends),
            expected="spans between tokens of the context that have characters",
            came=f"tokens {first} to {last} of window {window}, whose offsets are {ends}",
        )
        expect_that(
            first <= last < first + case.max_answer_length,
            expected=f"1 to {case.max_answer_length} tokens",
            came=f"tokens {first} to {last}",
        )


@check("N2", needs="best_spans", case=scored_windows())
def test_the_best_spans_must_be_those_of_brute_force(implementation: Subject, case: Scored) -> None:
    came = spans(implementation, case)
    expected = case.spans[: case.n_best]
    expect([span[3] for span in expected], [span[3] for span in came], where="scores, best first")
    least = expected[-1][3] if len(expected) == case.n_best else -math.inf
    # N3 checks which of several spans with the last score are returned.
    expect({s for s in expected if s[3] > least}, {s for s in came if s[3] > least}, where="spans above the last score")


@check("N2", needs="best_spans", cost=4, case=long_windows())
def test_the_best_spans_of_long_windows_must_be_those_of_brute_force(implementation: Subject, case: Scored) -> None:
    expected = [span[3] for span in case.spans[:3]]
    came = implementation.best_spans(case.start_logits, **case.logits, n_best=3, **case.length)
    expect(expected, [span[3] for span in came], where="scores, best first")


@check("N3", needs="best_spans", case=scored_windows(), levels=st.sampled_from([(1.0,), (0.0, 0.5)]))
def test_equal_scores_must_be_ordered_by_window_first_and_last(
    implementation: Subject, case: Scored, levels: tuple[float, ...]
) -> None:
    def few(rows: list[list[float]]) -> list[list[float]]:
        return [[levels[LEVELS.index(v) % len(levels)] if v in LEVELS else levels[0] for v in row] for row in rows]

    case = case.with_(start_logits=few(case.start_logits), end_logits=few(case.end_logits))
    expected, came = case.spans[: case.n_best], spans(implementation, case)
    if choice("ties") == "any":
        expect([span[3] for span in expected], [span[3] for span in came], where="scores, best first")
    else:
        expect(expected, came)


@check("N4", needs="best_spans", case=scored_windows(), start=st.integers(-9, 9), end=st.integers(-9, 9))
def test_a_constant_added_to_all_logits_must_not_change_the_spans(
    implementation: Subject, case: Scored, start: int, end: int
) -> None:
    expected = [(*span[:3], span[3] + start + end) for span in spans(implementation, case)]
    moved = case.with_(
        start_logits=[[value + start for value in row] for row in case.start_logits],
        end_logits=[[value + end for value in row] for row in case.end_logits],
    )
    expect(expected, spans(implementation, moved), where=f"after adding {start} to the starts and {end} to the ends")


@check("N5", needs="best_spans pick_answer", case=scored_windows(least=0, answerable=False), with_cls=st.booleans())
def test_windows_without_an_answer_token_must_give_an_empty_answer(
    implementation: Subject, case: Scored, with_cls: bool
) -> None:
    expect([], spans(implementation, case))
    came = answer(implementation, case, **({"cls": case.cls} if with_cls else {}))
    expect(nothing(case.null if with_cls else 0.0), came)


@check("N6", needs="best_spans pick_answer", drawn=pointed_windows())
def test_logits_that_point_to_a_span_must_give_that_span(implementation: Subject, drawn: tuple[Scored, Span]) -> None:
    case, span = drawn
    expect([span], implementation.best_spans(case.start_logits, **case.logits, n_best=1, **case.length))
    expect(as_text(case, span), answer(implementation, case))
    expect(as_text(case, span), answer(implementation, case, cls=case.cls), where="with cls")


@check("N7", needs="pick_answer", case=scored_windows())
def test_the_text_of_an_answer_must_be_a_slice_of_the_context(implementation: Subject, case: Scored) -> None:
    came = answer(implementation, case)
    expect(TEXT[came["start"] : came["end"]], came["text"])
    expect_answer([as_text(case, span) for span in case.best] or [nothing(0.0)], came)


@check("N7", needs="pick_answer", cost=4, case=long_windows())
def test_the_answer_in_a_long_window_must_be_the_best_span(implementation: Subject, case: Scored) -> None:
    """A short list of the likeliest starts and ends may miss it."""
    came = answer(implementation, case)
    expect_answer([as_text(case, span) for span in case.best], came)


@check(
    "N8",
    needs="pick_answer",
    case=scored_windows() | scored_windows(most=1),  # with one window, no answer wins more often
    threshold=st.sampled_from([0.0, 0.5, 1.0, -2.0, 20.0]),
    given=st.booleans(),
)
def test_no_answer_must_win_if_its_smallest_score_exceeds_the_best_span_by_the_threshold(
    implementation: Subject, case: Scored, threshold: float, given: bool
) -> None:
    more = {"null_threshold": threshold} if given else {}
    came = answer(implementation, case, cls=case.cls, **more)
    best = case.best
    wins = not best or case.null - best[0][3] > (threshold if given else 0.0)
    where = f"no answer scores {case.null}, the best span {best[0][3] if best else 'nothing'}"
    expect_answer([nothing(case.null)] if wins else [as_text(case, span) for span in best], came, where=where)


@check(
    "N9",
    needs="best_spans",
    kind="refusal",
    case=scored_windows(),
    fault=st.sampled_from(["start windows", "end windows", "start", "end", "n_best", "length", "nan", "inf"]),
    count=st.integers(-2, 0),
)
def test_best_spans_must_refuse_invalid_input(implementation: Subject, case: Scored, fault: str, count: int) -> None:
    mentions: tuple[object, ...] = ()
    starts, ends = [list(row) for row in case.start_logits], [list(row) for row in case.end_logits]
    limits: dict[str, Any] = {}
    if fault == "start windows":
        starts.append([0.0])
    elif fault == "end windows":
        ends.pop()
    elif fault in ("start", "end"):
        (starts if fault == "start" else ends)[-1].append(0.0)
        mentions = (len(case.offsets[-1]),)
    elif fault == "n_best":
        limits, mentions = {"n_best": count}, (count,)
    elif fault == "length":
        limits, mentions = {"max_answer_length": count}, (count,)
    else:
        ends[-1][-1] = float(fault)
        mentions = (fault,)
    implementation.expect_refusal(
        "best_spans", starts, end_logits=ends, offsets=case.offsets, mentions=mentions, **limits
    )


@check(
    "N9",
    needs="pick_answer",
    kind="refusal",
    case=scored_windows(),
    fault=st.sampled_from(["more", "fewer", "outside", "text", "nan"]),
)
def test_pick_answer_must_refuse_invalid_input(implementation: Subject, case: Scored, fault: str) -> None:
    cls, context, mentions = list(case.cls), TEXT, ()
    ends = [list(row) for row in case.end_logits]
    if fault == "more":
        cls.append(0)
    elif fault == "fewer":
        cls.pop()
    elif fault == "outside":
        cls[-1] = len(case.offsets[-1])
        mentions = (cls[-1],)  # type: ignore[assignment]
    elif fault == "nan":
        ends[0][0] = math.nan
    else:
        reach = max((pair[1] for row in case.offsets for pair in row if pair), default=0)
        if not reach:
            return
        context = TEXT[: reach - 1]
        mentions = (reach,)  # type: ignore[assignment]
    arguments = {"end_logits": ends, "offsets": case.offsets, "context": context, "cls": cls}
    implementation.expect_refusal("pick_answer", case.start_logits, mentions=mentions, **arguments)


def lists(case: Scored) -> list[list[list[int] | None]]:
    return [[pair and list(pair) for pair in row] for row in case.offsets]


@check("N10", needs="best_spans pick_answer", kind="form", case=scored_windows())
def test_best_spans_and_pick_answer_must_be_pure(implementation: Subject, case: Scored) -> None:
    logits: dict[str, Any] = {"end_logits": case.end_logits, "offsets": lists(case)}
    expect_pure(implementation, "best_spans", case.start_logits, **logits, **case.limits)
    expect_pure(implementation, "pick_answer", case.start_logits, **logits, context=TEXT, cls=case.cls, **case.length)


@check("N10", needs="best_spans pick_answer", kind="form", case=scored_windows())
def test_best_spans_and_pick_answer_must_accept_tuples_and_arrays(implementation: Subject, case: Scored) -> None:
    logits: dict[str, Any] = {"end_logits": case.end_logits, "offsets": lists(case)}
    expect_same_for_tuples_and_arrays(implementation, "best_spans", case.start_logits, **logits, **case.limits)
    more = {"context": TEXT, "cls": case.cls, **case.length}
    expect_same_for_tuples_and_arrays(implementation, "pick_answer", case.start_logits, **logits, **more)


def flat(rows: list[list[float]]) -> Any:
    return np.array([value for row in rows for value in row], dtype=np.float64)


def sides(case: Scored) -> dict[str, Ragged]:
    return {
        name: Ragged.from_lists([[-1 if pair is None else pair[side] for pair in row] for row in case.offsets])
        for side, name in enumerate(("starts", "ends"))
    }


@check("N11", needs="best_spans best_spans_batch", case=scored_windows(least=0), answerable=st.integers(0, 3))
def test_best_spans_batch_must_equal_best_spans(implementation: Subject, case: Scored, answerable: int) -> None:
    if answerable < len(case.offsets):  # one window without a token that could answer
        offsets = list(case.offsets)
        offsets[answerable] = [None] * len(offsets[answerable])
        case = case.with_(offsets=offsets)
    expected: dict[str, list[Any]] = {"first": [], "last": [], "score": []}
    for start, end, pairs in zip(case.start_logits, case.end_logits, case.offsets, strict=True):
        found = implementation.best_spans([start], end_logits=[end], offsets=[pairs], n_best=1, **case.length)
        _, first, last, score = found[0] if found else (0, -1, -1, -math.inf)
        for name, value in (("first", first), ("last", last), ("score", score)):
            expected[name].append(value)
    arguments = {"end_logits": flat(case.end_logits), **sides(case), **case.length}
    expect(expected, implementation.best_spans_batch(flat(case.start_logits), **arguments))
    expect_pure(implementation, "best_spans_batch", flat(case.start_logits), **arguments)


@check(
    "N11", needs="best_spans_batch", kind="refusal", case=scored_windows(), bad=st.sampled_from([math.nan, math.inf])
)
def test_best_spans_batch_must_refuse_invalid_logits(implementation: Subject, case: Scored, bad: float) -> None:
    ends = flat(case.end_logits)
    ends[-1] = bad
    arguments = {"end_logits": ends, **sides(case)}
    row = len(case.offsets) - 1
    implementation.expect_refusal("best_spans_batch", flat(case.start_logits), mentions=(row, bad), **arguments)


@check(
    "N11",
    needs="best_spans pick_answer pick_answer_batch",
    case=scored_windows(least=0),
    cuts=st.lists(st.integers(0, 3), max_size=2),
    threshold=st.sampled_from([None, 0.0, 1.0, -2.0]),
)
def test_pick_answer_batch_must_equal_pick_answer(
    implementation: Subject, case: Scored, cuts: list[int], threshold: float | None
) -> None:
    size = len(case.offsets)
    edges = sorted([0, *(min(cut, size) for cut in cuts), size])  # windows of each example; some examples have none
    found: dict[str, list[Any]] = {"first": [], "last": [], "score": []}
    for window in range(size):
        alone = case.with_(**_part(case, window, window + 1))
        best = alone.spans[0] if alone.spans else (0, -1, -1, -math.inf)
        for name, value in zip(found, best[1:], strict=True):
            found[name].append(value)
    dtypes = {"first": np.int64, "last": np.int64, "score": np.float64}
    best_of = {name: np.array(values, dtype=dtypes[name]) for name, values in found.items()}
    expected, example = [], []
    more: dict[str, Any] = {} if threshold is None else {"null_threshold": threshold}
    for number, (low, high) in enumerate(pairwise(edges)):
        part = case.with_(**_part(case, low, high))
        with_cls = {} if threshold is None else {"cls": part.cls, **more}
        expected.append(answer(implementation, part, **with_cls))
        example += [number] * (high - low)
    if threshold is not None:
        nulls = [s[at] + e[at] for s, e, at in zip(case.start_logits, case.end_logits, case.cls, strict=True)]
        more["null_scores"] = np.array(nulls, dtype=np.float64)
    arguments = {
        "example": np.array(example, dtype=np.int64),
        **sides(case),
        "contexts": [TEXT] * (len(edges) - 1),
        **more,
    }
    expect(expected, implementation.pick_answer_batch(best_of, **arguments))
    expect_pure(implementation, "pick_answer_batch", best_of, **arguments)


def _part(case: Scored, low: int, high: int) -> dict[str, Any]:
    return {name: getattr(case, name)[low:high] for name in ("start_logits", "end_logits", "offsets", "cls")}
