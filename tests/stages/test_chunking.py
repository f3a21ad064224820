"""Chunks by hand and against the course's quadratic code, and the batched version."""

import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from touchstone.stages import chunk, chunk_batch, chunk_batches
from touchstone.stages.ragged import Ragged

DOCUMENTS = {
    "input_ids": [[1, 2, 3], [], [4, 5], [6, 7, 8, 9, 10]],
    "word_ids": [[None, 0, None], [], [2, 2], [None, 0, 1, 1, None]],
}
SHIFTED = [None, 0, None, 3, 3, None, 4, 5, 5, None]
"""Renumbered word ids: document 0 uses one id, the empty document none, the third document three (0, 1, 2)."""


def test_chunk_cuts_at_the_length_and_renumbers_word_ids() -> None:
    expected = {"input_ids": [[1, 2, 3, 4], [5, 6, 7, 8]], "word_ids": [SHIFTED[:4], SHIFTED[4:8]]}
    assert chunk(DOCUMENTS, length=4) == expected


def test_the_tail_is_dropped_kept_or_padded() -> None:
    pad = {"input_ids": 0, "word_ids": None}
    assert chunk(DOCUMENTS, length=4, tail="keep")["input_ids"][2:] == [[9, 10]]
    assert chunk(DOCUMENTS, length=4, tail="pad", pad=pad)["input_ids"][2:] == [[9, 10, 0, 0]]
    assert chunk(DOCUMENTS, length=4, tail="pad", pad=pad)["word_ids"][2:] == [[5, None, None, None]]


@pytest.mark.parametrize("tail", ["drop", "keep", "pad"])
def test_documents_that_fill_the_chunks_leave_no_tail(tail: str) -> None:
    documents = {"input_ids": [[1, 2], [3, 4]]}
    assert chunk(documents, length=2, tail=tail, pad={"input_ids": 0}) == {"input_ids": [[1, 2], [3, 4]]}
    assert chunk(documents, length=4, tail=tail, pad={"input_ids": 0}) == {"input_ids": [[1, 2, 3, 4]]}


@pytest.mark.parametrize("documents", [[], [[]], [[], []]])
@pytest.mark.parametrize("tail", ["drop", "keep", "pad"])
def test_columns_without_tokens_are_kept(documents: list[list[int]], tail: str) -> None:
    columns = {"input_ids": documents, "word_ids": documents}
    pad = {"input_ids": 0, "word_ids": None}
    assert chunk(columns, length=3, tail=tail, pad=pad) == {"input_ids": [], "word_ids": []}


def test_fewer_tokens_than_one_chunk_are_the_tail() -> None:
    documents = {"input_ids": [[1], [2]]}
    assert chunk(documents, length=5) == {"input_ids": []}
    assert chunk(documents, length=5, tail="keep") == {"input_ids": [[1, 2]]}
    assert chunk(documents, length=5, tail="pad", pad={"input_ids": 9}) == {"input_ids": [[1, 2, 9, 9, 9]]}


def test_one_document_is_cut_like_many() -> None:
    assert chunk({"input_ids": [[1, 2, 3, 4, 5]]}, length=2) == {"input_ids": [[1, 2], [3, 4]]}


def test_no_columns_give_no_columns() -> None:
    assert {} == chunk({}, length=2) == chunk_batches([], length=2) == chunk_batch({}, length=2)


@pytest.mark.parametrize("cut", [[0, 4], [0, 1, 2, 3, 4], [0, 2, 2, 4], [0, 3, 4]])
def test_the_chunks_do_not_depend_on_how_documents_are_batched(cut: list[int]) -> None:
    batches = [{name: documents[start:end] for name, documents in DOCUMENTS.items()} for start, end in pairwise(cut)]
    for tail in ("drop", "keep"):
        assert chunk(DOCUMENTS, length=4, tail=tail) == chunk_batches(iter(batches), length=4, tail=tail)


def test_chunks_equal_those_of_the_course_when_it_maps_all_documents_at_once() -> None:
    """The course's code is `group_texts` (chapter 7, section 3): concatenate with `sum`, drop the tail."""
    random = np.random.default_rng(3)
    documents = [random.integers(100, size=size).tolist() for size in random.integers(0, 30, size=50)]
    flat: list[int] = sum(documents, [])  # noqa: RUF017 (quadratic, as the course has it)
    expected = [flat[i : i + 16] for i in range(0, len(flat) // 16 * 16, 16)]
    assert chunk({"input_ids": documents}, length=16) == {"input_ids": expected}


def test_chunks_share_no_memory_with_each_other_or_with_the_input() -> None:
    offsets = [[0, 1], [1, 2]]
    pad_offset = [0, 0]
    ids = [[1, 2]]
    columns = {"input_ids": ids, "labels": ids, "offset_mapping": [offsets]}
    result = chunk(columns, length=4, tail="pad", pad={"input_ids": 0, "labels": -100, "offset_mapping": pad_offset})
    result["labels"][0][0] = 77
    for pair in result["offset_mapping"][0]:
        pair[0] += 50
    assert result["input_ids"] == [[1, 2, 0, 0]]
    assert result["offset_mapping"][0] == [[50, 1], [51, 2], [50, 0], [50, 0]]
    assert (offsets, pad_offset, ids) == ([[0, 1], [1, 2]], [0, 0], [[1, 2]])


def test_numpy_documents_give_plain_integers() -> None:
    result = chunk({"input_ids": [np.array([1, 2]), np.array([3])]}, length=2)
    assert result == {"input_ids": [[1, 2]]}
    assert [type(value) for value in result["input_ids"][0]] == [int, int]


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"length": 0}, "length is 0"),
    ({}, {"tail": "wrap"}, "tail 'wrap'"),
    ({}, {"tail": "pad"}, r"none for \['input_ids', 'word_ids'\]"),
    ({}, {"tail": "pad", "pad": {"input_ids": 0}}, r"none for \['word_ids'\]"),
    ({"word_ids": [[0, 0]]}, {}, "'word_ids' has 1 documents, column 'input_ids' has 2"),
    ({"word_ids": [[0, 0], [1, 1]]}, {}, "document 1 has 2 values in 'word_ids' and 1 in 'input_ids'"),
    ({"word_ids": [[0, 0], [-2]]}, {}, "word_ids of document 1 hold -2"),
]


@pytest.mark.parametrize(("columns", "options", "message"), WRONG)
def test_chunk_and_its_batched_version_refuse_invalid_input(
    columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    wrong = {"input_ids": [[5, 6], [7]], "word_ids": [[0, 0], [0]]} | columns
    with pytest.raises(ValueError, match=message):
        chunk(wrong, **{"length": 2} | options)
    with pytest.raises(ValueError, match=message):
        chunk_batch({name: Ragged.from_lists(rows) for name, rows in wrong.items()}, **{"length": 2} | options)


def test_chunk_batches_names_the_batch_that_differs() -> None:
    with pytest.raises(ValueError, match=r"batch 1 has the columns \['b'\], batch 0 has \['a'\]"):
        chunk_batches([{"a": [[1]]}, {"b": [[1]]}], length=2)
    cancelling = [{"a": [[1], [2]], "b": [[1]]}, {"a": [[3]], "b": [[2], [3]]}]
    with pytest.raises(ValueError, match="batch 0: column 'b' has 1 documents, column 'a' has 2"):
        chunk_batches(cancelling, length=2)


@pytest.mark.parametrize("tail", ["drop", "keep", "pad"])
@pytest.mark.parametrize("length", [1, 3, 8, 1000])
def test_chunk_batch_equals_chunk_on_random_input(tail: str, length: int) -> None:
    random = np.random.default_rng(length)
    sizes = random.integers(0, 9, size=40) * random.integers(0, 2, size=40)
    columns: dict[str, list[list[Any]]] = {
        "input_ids": [random.integers(100, size=size).tolist() for size in sizes],
        "word_ids": [[None if i < 0 else i for i in random.integers(-1, 5, size=size).tolist()] for size in sizes],
    }
    pad = {"input_ids": 0, "word_ids": None}
    ragged = {name: Ragged.from_lists(rows) for name, rows in columns.items()}
    plain = chunk(columns, length=length, tail=tail, pad=pad)
    batched = chunk_batch(ragged, length=length, tail=tail, pad=pad)
    assert {name: Ragged.from_lists(rows).to_lists() for name, rows in plain.items()} == {
        name: rows.to_lists() for name, rows in batched.items()
    }
    untouched = batched["word_ids"].to_lists()
    batched["input_ids"].values[:] = 77
    batched["input_ids"].offsets[:] = 0
    assert batched["word_ids"].to_lists() == untouched
    assert {name: Ragged.from_lists(rows) for name, rows in columns.items()} == ragged


def test_chunking_is_not_quadratic_in_the_number_of_documents() -> None:
    """The quadratic code is timed too, in CPU time, so that neither the machine nor its load matters. It takes about 60
    times as long as linear code; the bound is a quarter of that, far from both."""
    documents = [[1] * 50] * 3_000

    def seconds(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    quadratic = seconds(lambda: sum(documents, []))  # noqa: RUF017
    assert seconds(lambda: chunk({"input_ids": documents}, length=128)) < quadratic / 4


def test_chunk_batch_needs_little_more_memory_than_its_result() -> None:
    """The result takes 8 MB. A bound of 3 times that allows one temporary, but not a copy per document."""
    ragged = Ragged.from_lengths(np.zeros(1_000_000, np.int64), lengths=np.full(10_000, 100))
    tracemalloc.start()
    chunk_batch({"input_ids": ragged}, length=128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 3 * ragged.values.nbytes > peak
