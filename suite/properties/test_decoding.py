"""Checks D1-D8 of docs/contract.md: `clean_sequences`."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from touchstone.properties.check import check
from touchstone.properties.failure import expect, expect_that
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.seq2seq import Sequences, sequences
from touchstone.properties.subject import Subject


def clean(implementation: Subject, case: Sequences) -> list[list[int]]:
    result: list[list[int]] = implementation.clean_sequences(case.sequences, **case.arguments)
    return result


@check("D1", needs="clean_sequences", case=sequences())
def test_negative_ids_and_padding_must_be_removed(implementation: Subject, case: Sequences) -> None:
    for number, row in enumerate(clean(implementation, case)):
        bad = [id for id in row if id < 0 or id == case.pad_id]
        expect_that(not bad, expected=f"neither padding ({case.pad_id}) nor a negative id in row {number}", came=row)


@check("D2", needs="clean_sequences", case=sequences(), after=st.lists(st.integers(10, 20), min_size=1, max_size=4))
def test_the_first_end_of_sequence_and_everything_after_it_must_be_removed(
    implementation: Subject, case: Sequences, after: list[int]
) -> None:
    rows = [[10, *tokens, case.eos_id] for tokens in case.tokens]
    ended = case.with_(sequences=rows)
    longer = case.with_(sequences=[[*row, *after, case.eos_id, *after] for row in rows])
    expect([[10, *tokens] for tokens in case.tokens], clean(implementation, ended), where="rows that end")
    expect(clean(implementation, ended), clean(implementation, longer), where=f"with {after} after the end")


@check("D3", needs="clean_sequences", case=sequences())
def test_all_other_tokens_must_be_kept_in_order(implementation: Subject, case: Sequences) -> None:
    expect(case.tokens, clean(implementation, case))


@check("D4", needs="clean_sequences", tokens=st.lists(st.integers(10, 20), max_size=5))
def test_one_start_token_must_be_removed_and_only_at_the_beginning(implementation: Subject, tokens: list[int]) -> None:
    start, end = 3, 1
    rows = [[start, *tokens, end], [-100, start, *tokens], [10, start, *tokens, end], [start, start, *tokens]]
    expected = [tokens, tokens, [10, start, *tokens], [start, *tokens]]
    expect(expected, implementation.clean_sequences(rows, pad_id=0, eos_id=end, start_id=start))
    expect([start, *tokens], implementation.clean_sequences(rows, pad_id=0, eos_id=end)[0], where="without start_id")


@check("D5", needs="clean_sequences", case=sequences(one_id=True))
def test_rows_must_be_cleaned_even_if_padding_end_and_start_are_one_id(
    implementation: Subject, case: Sequences
) -> None:
    implementation.remark(ids=f"padding {case.pad_id}, end {case.eos_id}, start {case.start_id}")
    expect(case.tokens, clean(implementation, case))


@check("D6", needs="clean_sequences", case=sequences())
def test_a_clean_row_must_not_change(implementation: Subject, case: Sequences) -> None:
    once = clean(implementation, case)
    expect(once, clean(implementation, case.with_(sequences=once, start_id=None)), where="cleaned once and twice")


@check("D6", needs="clean_sequences", case=sequences())
def test_each_row_must_be_cleaned_independently(implementation: Subject, case: Sequences) -> None:
    alone = [clean(implementation, case.with_(sequences=[row]))[0] for row in case.sequences]
    expect(alone, clean(implementation, case), where="each row alone, and all together")


@check(
    "D7",
    needs="clean_sequences",
    kind="refusal",
    case=sequences(),
    bad=st.sampled_from([-1, -99, -101]),
    place=st.integers(0, 9),
)
def test_clean_sequences_must_refuse_a_negative_id_other_than_minus_100(
    implementation: Subject, case: Sequences, bad: int, place: int
) -> None:
    rows = [[10, 11, 12], *case.sequences]
    number = place % len(rows)
    rows[number] = [bad, *rows[number]] if place % 2 else [*rows[number], bad]
    implementation.expect_refusal("clean_sequences", rows, mentions=(number, bad), **case.arguments)


@check("D8", needs="clean_sequences", kind="form", case=sequences())
def test_clean_sequences_must_be_pure(implementation: Subject, case: Sequences) -> None:
    expect_pure(implementation, "clean_sequences", case.sequences, **case.arguments)
    width = max([len(row) for row in case.sequences], default=0)
    array = np.array([[*row, *[-100] * (width - len(row))] for row in case.sequences], dtype=np.int64)
    expect_pure(implementation, "clean_sequences", array.reshape(len(case.sequences), width), **case.arguments)


@check("D8", needs="clean_sequences", kind="form", case=sequences())
def test_clean_sequences_must_accept_tuples_and_arrays(implementation: Subject, case: Sequences) -> None:
    expect_same_for_tuples_and_arrays(implementation, "clean_sequences", case.sequences, **case.arguments)
