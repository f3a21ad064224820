"""Spans and answers counted by hand; the batched versions equal the plain stages and are fast enough for a split."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest

from touchstone.stages import best_spans, best_spans_batch, pick_answer, pick_answer_batch
from touchstone.stages.ragged import Ragged

CONTEXT = "Ada met Alan in Oslo."
OFFSETS = [[None, (0, 3), (4, 7), (8, 12), None], [None, (13, 15), (16, 20), (20, 21)]]
START = [[0.0, 1.0, 0.0, 2.0, 9.0], [-1.0, 0.5, 3.0, 0.0]]
END = [[0.0, 0.0, 1.0, 2.0, 9.0], [-1.0, 0.0, 1.5, 1.0]]


def test_the_best_spans_of_all_windows_come_first() -> None:
    expected = [(1, 2, 2, 4.5), (0, 3, 3, 4.0), (1, 2, 3, 4.0), (0, 1, 3, 3.0)]
    assert best_spans(START, end_logits=END, offsets=OFFSETS, n_best=4) == expected


def test_best_spans_returns_all_spans_if_there_are_fewer_than_n_best() -> None:
    assert len(best_spans(START, end_logits=END, offsets=OFFSETS)) == 12
    assert len(best_spans(START, end_logits=END, offsets=OFFSETS, max_answer_length=1)) == 6
    assert best_spans([], end_logits=[], offsets=[]) == []
    assert best_spans([[1.0]], end_logits=[[1.0]], offsets=[[None]]) == []


def test_the_twenty_likeliest_starts_and_ends_would_miss_the_best_span() -> None:
    """The likeliest starts all come after the likeliest ends, so the course's code finds no answer."""
    size = 60
    start = [[0.0] * 30 + [5.0] * 30]
    end = [[5.0] * 30 + [0.0] * 30]
    offsets = [[(at, at + 1) for at in range(size)]]
    assert best_spans(start, end_logits=end, offsets=offsets, n_best=1) == [(0, 0, 0, 5.0)]


def test_scores_are_in_double_precision() -> None:
    start, end = np.array([[1.0]], np.float32), np.array([[2.0**-24]], np.float32)
    ((_, _, _, score),) = best_spans(start, end_logits=end, offsets=[[(0, 1)]])  # type: ignore[arg-type]
    assert score == 1.0 + 2.0**-24


def answer(**changes: Any) -> Any:
    arguments: dict[str, Any] = {"end_logits": END, "offsets": OFFSETS, "context": CONTEXT}
    return pick_answer(START, **arguments | changes)


def test_pick_answer_returns_the_text_of_the_best_span() -> None:
    assert answer() == {"text": "Oslo", "start": 16, "end": 20, "score": 4.5}
    assert answer(offsets=[OFFSETS[0], [None] * 4], max_answer_length=2) == {
        "text": "Alan",
        "start": 8,
        "end": 12,
        "score": 4.0,
    }


def test_no_answer_wins_by_its_smallest_score() -> None:
    nothing = {"text": "", "start": 0, "end": 0}
    assert answer(cls=[4, 0])["text"] == "Oslo"  # 18 in the first window, but -2 in the second
    assert answer(cls=[4, 0], null_threshold=-7.0) == nothing | {"score": -2.0}
    assert answer(cls=[4, 0], null_threshold=-6.5)["text"] == "Oslo"  # not more than the threshold above
    assert answer(offsets=[[None] * 5, [None] * 4]) == nothing | {"score": 0.0}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"end_logits": END[:1]}, "end_logits has 1 windows, offsets 2"),
    ({"end_logits": [END[0], END[1][:3]]}, r"end_logits\[1\] has length 3, offsets\[1\] 4"),
    ({"end_logits": [END[0], [0.0, math.nan, 0.0, 0.0]]}, r"end_logits\[1\]\[1\] is nan"),
    ({"max_answer_length": 0}, "max_answer_length is 0"),
    ({"context": "Ada"}, r"offsets\[0\]\[2\] is \(4, 7\): the context has only 3 characters"),
    ({"cls": [0]}, "1 values of cls for 2 windows"),
    ({"cls": [0, 4]}, r"cls\[1\] is 4: the window has 4 tokens"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_pick_answer_refuses_invalid_input_and_names_its_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answer(**changes)


def test_best_spans_refuses_an_n_best_of_0() -> None:
    with pytest.raises(ValueError, match="n_best is 0"):
        best_spans(START, end_logits=END, offsets=OFFSETS, n_best=0)


def sides(offsets: Any) -> dict[str, Ragged]:
    return {
        name: Ragged.from_lists([[-1 if pair is None else pair[side] for pair in row] for row in offsets])
        for side, name in enumerate(("starts", "ends"))
    }


def flat(rows: list[list[float]]) -> Any:
    return np.concatenate([np.asarray(row) for row in rows])


def test_the_batched_versions_equal_a_count_by_hand() -> None:
    spans = best_spans_batch(flat(START), end_logits=flat(END), **sides(OFFSETS))
    assert {k: v.tolist() for k, v in spans.items()} == {"first": [3, 2], "last": [3, 2], "score": [4.0, 4.5]}
    one = pick_answer_batch(spans, example=np.array([0, 0]), contexts=[CONTEXT], **sides(OFFSETS))
    assert [answer()] == one
    two = pick_answer_batch(spans, example=np.array([2, 0]), contexts=[CONTEXT] * 3, **sides(OFFSETS))
    assert [each["text"] for each in two] == ["Oslo", "", "Alan"]


@pytest.mark.parametrize("longest", [1, 2, 7, 30])
@pytest.mark.parametrize("grain", [None, 1.0])
def test_best_spans_batch_equals_best_spans_on_random_input(longest: int, grain: float | None) -> None:
    """`grain` rounds the logits, so that many scores are equal."""
    random = np.random.default_rng(longest)
    offsets: list[list[Any]] = []
    for size in random.integers(1, 40, size=50):
        begins = np.cumsum(random.integers(0, 3, size=size)).tolist()
        row: list[Any] = [(start, start + int(random.integers(0, 3))) for start in begins]
        row[: int(random.integers(0, size + 1))] = [None] * int(random.integers(0, 5))
        offsets.append(row or [None])
    logits = [[random.normal(size=len(row)) for row in offsets] for _ in range(2)]
    if grain is not None:
        logits = [[np.round(row * 2) * grain for row in side] for side in logits]
    found = best_spans_batch(
        flat(logits[0]),
        end_logits=flat(logits[1]),
        max_answer_length=longest,
        **sides(offsets),  # type: ignore[arg-type]
    )
    for window, row in enumerate(offsets):
        best = best_spans(
            [logits[0][window]],  # type: ignore[list-item]
            end_logits=[logits[1][window]],  # type: ignore[list-item]
            offsets=[row],
            n_best=1,
            max_answer_length=longest,
        )
        expected = best[0][1:] if best else (-1, -1, -math.inf)
        assert (found["first"][window], found["last"][window], found["score"][window]) == expected


def test_best_spans_batch_searches_all_of_squads_validation_quickly() -> None:
    """10,822 windows of 384 tokens, in CPU time. It takes 0.1 to 0.5 s; a loop over 125 million pairs takes minutes."""
    windows, width = 10_822, 384
    starts = np.tile(np.r_[[-1] * 15, np.arange(width - 16) * 5, -1], windows)
    ends = np.where(starts < 0, -1, starts + 4)
    lengths = np.full(windows, width)
    random = np.random.default_rng(0)
    logits = [random.normal(size=len(starts)).astype(np.float32) for _ in range(2)]
    begin = time.process_time()
    best_spans_batch(
        logits[0],
        end_logits=logits[1],
        starts=Ragged.from_lengths(starts, lengths=lengths),
        ends=Ragged.from_lengths(ends, lengths=lengths),
    )
    assert time.process_time() - begin < 5.0


@pytest.mark.parametrize("block", [1, 2, 7, 64])
def test_spans_do_not_depend_on_the_size_of_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(block)
    lengths = generator.integers(0, 9, size=40)
    starts = Ragged.from_lengths(generator.integers(-1, 5, size=int(lengths.sum())), lengths=lengths)
    ends = starts.with_values(np.where(starts.values < 0, -1, starts.values + 1))
    logits = generator.normal(size=(2, len(starts.values))).astype(np.float32)
    expected = best_spans_batch(logits[0], end_logits=logits[1], starts=starts, ends=ends, max_answer_length=3)
    monkeypatch.setattr("touchstone.stages.spans.BLOCK", block)
    came = best_spans_batch(logits[0], end_logits=logits[1], starts=starts, ends=ends, max_answer_length=3)
    assert {name: column.tolist() for name, column in expected.items()} == {
        name: column.tolist() for name, column in came.items()
    }
