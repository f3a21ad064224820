"""Checks C1-C12 of docs/contract.md: `chunk`, `chunk_batches` and the batched version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from touchstone.properties.check import check
from touchstone.properties.domain import choice
from touchstone.properties.failure import expect, expect_that
from touchstone.properties.purity import expect_nothing_shared, expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.chunking import PAD, Columns, Documents, documents, spread_documents
from touchstone.properties.subject import Subject
from touchstone.properties.values import OneShot, fresh, plain
from touchstone.stages.ragged import Ragged


def in_a_row(rows: list[list[int | None]]) -> list[int | None]:
    return [value for row in rows for value in row]


def expected_loss(case: Documents) -> int:
    return case.total % case.length if case.tail == "drop" else 0


def without_fill(case: Documents, rows: list[list[int | None]]) -> list[int | None]:
    """Return the values of a column without the padding at the end."""
    values = in_a_row(rows)
    return values[: case.total] if case.tail == "pad" else values


def expected_word_ids(case: Documents) -> list[list[int | None]]:
    """Return the ids of each document, shifted by the sum of (largest id + 1) over the documents before it."""
    shifted, shift = [], 0
    for document in case.columns["word_ids"]:
        words = [word for word in document if word is not None]
        shifted.append([None if word is None else word + shift for word in document])
        shift += max(words) + 1 if words else 0
    return shifted


@check("C1", needs="chunk", case=documents())
def test_every_chunk_must_have_the_length(implementation: Subject, case: Documents) -> None:
    for name, rows in implementation.chunk(case.columns, **case.arguments).items():
        sizes = [len(row) for row in rows]
        last_may_be_short = case.tail == "keep" and sizes and 0 < sizes[-1] <= case.length
        full = sizes[:-1] if last_may_be_short else sizes
        expect_that(
            all(size == case.length for size in full),
            expected=f"chunks of {case.length} in column {name!r}"
            + (", but for a last one that is shorter and not empty" if case.tail == "keep" else ""),
            came=f"chunks of {sizes}",
        )


@check("C2", needs="chunk", case=documents())
def test_only_the_declared_tokens_must_be_lost(implementation: Subject, case: Documents) -> None:
    came = implementation.chunk(case.columns, **case.arguments)
    kept = case.total - expected_loss(case)
    fill = -kept % case.length if case.tail == "pad" else 0
    for name, rows in came.items():
        expect_that(
            len(in_a_row(rows)) == kept + fill,
            expected=f"{kept} of {case.total} tokens and {fill} of fill in column {name!r}",
            came=f"{len(in_a_row(rows))}: {plain(rows)}",
        )


@check("C3", needs="chunk", case=documents(words=False))
def test_chunks_must_keep_the_order_of_the_tokens(implementation: Subject, case: Documents) -> None:
    came = implementation.chunk(case.columns, **case.arguments)
    for name, rows in came.items():
        expected = in_a_row(case.columns[name])[: case.total - expected_loss(case)]
        expect(expected, without_fill(case, rows), where=f"column {name!r}")


@check("C4", needs="chunk", case=documents())
def test_every_column_must_be_cut_at_the_same_places(implementation: Subject, case: Documents) -> None:
    came = implementation.chunk(case.columns, **case.arguments)
    expect_that(set(came) == set(case.columns), expected=f"the columns {sorted(case.columns)}", came=f"{sorted(came)}")
    cuts = [len(row) for row in came["input_ids"]]
    start = {name: in_a_row(rows)[0] for name, rows in case.columns.items() if case.total and name != "word_ids"}
    for name, rows in came.items():
        expect(cuts, [len(row) for row in rows], where=f"sizes of the chunks of {name!r} and of 'input_ids'")
        if name in start:  # a value identifies its token: the same token in every column
            here, there = (_tokens(case, column, came[column], start[column]) for column in (name, "input_ids"))
            expect(there, here, where=f"token numbers in {name!r} and in 'input_ids'")


def _tokens(case: Documents, name: str, rows: list[list[int | None]], start: int | None) -> list[list[int | None]]:
    """Return each cell as the index of its token, `None` for fill."""
    return [[None if value == PAD[name] else (value or 0) - (start or 0) for value in row] for row in rows]


@check("C5", needs="chunk", case=documents(words=True))
def test_two_documents_must_not_share_a_word_id(implementation: Subject, case: Documents) -> None:
    came = without_fill(case, implementation.chunk(case.columns, **case.arguments)["word_ids"])
    owner: dict[int, tuple[int, int | None]] = {}
    sources = [(number, word) for number, document in enumerate(case.columns["word_ids"]) for word in document]
    for position, (source, word) in enumerate(zip(sources, came, strict=False)):
        if word is not None and owner.setdefault(word, source) != source:
            before = owner[word]
            expect_that(
                False,
                expected=f"different ids for word {before[1]} of document {before[0]} and word {source[1]} of "
                f"document {source[0]}",
                came=f"{word} for both, at position {position}: {came}",
            )
    expect(in_a_row(expected_word_ids(case))[: case.total - expected_loss(case)], came)


@check("C6", needs="chunk", kind="form", case=documents(min_documents=1))
def test_the_chunks_must_not_share_memory(implementation: Subject, case: Documents) -> None:
    shared = case.columns["input_ids"]
    columns = {**case.columns, "labels": shared}  # in the course, labels and input ids are the same object
    pad = {"pad": {**PAD, "labels": 0}} if case.tail == "pad" else {}
    handed = (columns,)
    result = implementation.record("chunk", handed, {"length": case.length, "tail": case.tail, **pad}, hand_over=_same)
    expect_nothing_shared(result, arguments=handed)
    before = plain(result)
    for name, column in result.items():
        for number, row in enumerate(column):  # one cell of each row: `expect_nothing_shared` has looked at all of them
            kept, row[0] = row[0], -5
            expected = fresh(before)
            expected[name][number][0] = -5
            expect(expected, plain(result), where=f"after result[{name!r}][{number}][0] = -5")
            row[0] = kept


def _same(value: Any) -> Any:
    return value


@check("C7", needs="chunk chunk_batches", drawn=spread_documents(), once=st.booleans())
def test_chunks_must_not_depend_on_how_documents_are_batched(
    implementation: Subject, drawn: tuple[Documents, list[Columns]], once: bool
) -> None:
    case, batches = drawn
    if choice("remainder") == "batch":
        parts = [implementation.chunk(batch, **case.arguments) for batch in batches]
        expected = {name: [row for part in parts for row in part[name]] for name in case.columns}
    else:
        expected = implementation.chunk(case.columns, **case.arguments)
    expect(expected, implementation.chunk_batches(one_shot(batches) if once else batches, **case.arguments))


def one_shot(batches: list[Columns]) -> Any:
    """Return the batches as an iterator, as a streamed data set does."""
    return OneShot(batches)


@check("C8", needs="chunk", case=documents(), extra=st.integers(1, 20))
def test_too_few_tokens_empty_documents_and_no_documents_must_be_valid(
    implementation: Subject, case: Documents, extra: int
) -> None:
    case = case.with_(length=case.total + extra)
    expected: Columns = {}
    for name, column in case.columns.items():
        values = in_a_row(expected_word_ids(case) if name == "word_ids" else column)
        fill = [PAD[name]] * extra if case.tail == "pad" else []
        expected[name] = [] if case.tail == "drop" or not values else [[*values, *fill]]
    expect(expected, implementation.chunk(case.columns, **case.arguments))


@check("C9", needs="chunk", kind="refusal", case=documents(min_documents=1), length=st.integers(-3, 0))
def test_chunk_must_refuse_a_length_below_one(implementation: Subject, case: Documents, length: int) -> None:
    implementation.expect_refusal("chunk", case.columns, mentions=(length,), **case.arguments | {"length": length})


@check(
    "C9",
    needs="chunk",
    kind="refusal",
    case=documents(min_documents=1),
    tail=st.sampled_from(["cut", "DROP", "padding", ""]),
)
def test_chunk_must_refuse_an_unknown_tail(implementation: Subject, case: Documents, tail: str) -> None:
    implementation.expect_refusal("chunk", case.columns, mentions=(tail,), **case.arguments | {"tail": tail})


@check("C9", needs="chunk", kind="refusal", case=documents(min_documents=1, words=False), data=st.data())
def test_chunk_must_refuse_columns_of_different_lengths(implementation: Subject, case: Documents, data: Any) -> None:
    other = [list(document) for document in case.columns["input_ids"]]
    if data.draw(st.booleans()):
        other.pop()
    else:
        document = data.draw(st.integers(0, len(other) - 1))
        other[document].append(5)
    columns = {**case.columns, "other": other}
    arguments = {"length": case.length, "tail": case.tail}
    pad = {"pad": {**PAD, "other": 0}} if case.tail == "pad" else {}
    implementation.expect_refusal("chunk", columns, mentions=("other",), **arguments, **pad)


@check("C9", needs="chunk", kind="refusal", case=documents(tail="pad", min_documents=1), missing_all=st.booleans())
def test_chunk_must_refuse_to_pad_a_column_without_a_fill(
    implementation: Subject, case: Documents, missing_all: bool
) -> None:
    case = case.with_(length=case.total + 1)  # so that there is something to fill
    name = next(iter(case.columns))
    pad = {} if missing_all else {"pad": {other: PAD[other] for other in case.columns if other != name}}
    if case.total:
        arguments = {"length": case.length, "tail": "pad", **pad}
        implementation.expect_refusal("chunk", case.columns, mentions=(name,), **arguments)


@check(
    "C9",
    needs="chunk_batches",
    kind="refusal",
    case=documents(min_documents=1),
    fault=st.sampled_from(["length", "tail", "column"]),
)
def test_chunk_batches_must_refuse_invalid_batches(implementation: Subject, case: Documents, fault: str) -> None:
    arguments: dict[str, Any] = case.arguments
    mentions: object = 0
    columns = dict(case.columns)
    if fault == "length":
        arguments["length"] = 0
    elif fault == "tail":
        arguments["tail"] = mentions = "cut"
    else:
        arguments, mentions = {"length": case.length}, "other"
        columns["other"] = [[*document, 5] for document in columns["input_ids"]]
    implementation.expect_refusal("chunk_batches", [case.columns, columns], mentions=(mentions,), **arguments)


@check("C10", needs="chunk", kind="form", case=documents())
def test_chunk_must_be_pure(implementation: Subject, case: Documents) -> None:
    expect_pure(implementation, "chunk", case.columns, **case.arguments)


@check("C10", needs="chunk", kind="form", case=documents())
def test_chunk_must_accept_tuples_and_arrays(implementation: Subject, case: Documents) -> None:
    expect_same_for_tuples_and_arrays(implementation, "chunk", case.columns, **case.arguments)


@check("C10", needs="chunk_batches", kind="form", drawn=spread_documents())
def test_chunk_batches_must_be_pure(implementation: Subject, drawn: tuple[Documents, list[Columns]]) -> None:
    case, batches = drawn
    expect_pure(implementation, "chunk_batches", batches, **case.arguments)


@check("C11", needs="chunk chunk_batch", case=documents())
def test_chunk_batch_must_equal_chunk(implementation: Subject, case: Documents) -> None:
    expected = _with_missing(implementation.chunk(case.columns, **case.arguments))
    columns = {name: Ragged.from_lists(column) for name, column in case.columns.items()}
    arguments = case.arguments
    if case.tail == "pad":
        arguments["pad"] = {name: -1 if value is None else value for name, value in arguments["pad"].items()}
    expect(expected, implementation.chunk_batch(columns, **arguments))
    expect_pure(implementation, "chunk_batch", columns, **arguments)


def _with_missing(columns: Mapping[str, list[list[int | None]]]) -> Columns:
    """Replace `None` by -1, as ragged arrays do."""
    return {name: [[-1 if value is None else value for value in row] for row in rows] for name, rows in columns.items()}


@check("C12", needs="chunk", case=documents(tail="pad"))
def test_each_column_must_be_filled_with_its_own_value_and_only_at_the_end(
    implementation: Subject, case: Documents
) -> None:
    came = implementation.chunk(case.columns, **case.arguments)
    fill = -case.total % case.length
    for name, rows in came.items():
        values = in_a_row(rows)
        expect([PAD[name]] * fill, values[case.total :], where=f"after the {case.total} tokens of column {name!r}")
        if PAD[name] is not None:
            inner = [position for position, value in enumerate(values[: case.total]) if value == PAD[name]]
            expect_that(not inner, expected=f"no fill {PAD[name]} among the tokens of {name!r}", came=plain(rows))
