"""Checks A14-A16 of docs/contract.md: `merge_labels` (from tokens back to words) and its batched version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from touchstone.properties import oracles
from touchstone.properties.check import check
from touchstone.properties.failure import expect, expect_that
from touchstone.properties.oracles import IGNORED
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.alignment import (
    Alignment,
    alignment_batches,
    misspelt_alignments,
    predictions,
    shared_arguments,
    token_labels,
)
from touchstone.properties.subject import Subject
from touchstone.stages.ragged import Ragged


def merge(implementation: Subject, case: Alignment, tokens: Sequence[int]) -> Any:
    implementation.remark(**case.remarks)
    return implementation.merge_labels(tokens, n_words=len(case.labels), **case.merging)


def expected_words(case: Alignment, token_labels: Sequence[int]) -> list[int]:
    """Return the labels by the contract: the first token decides, and in IOBES and BILOU the last decides the end."""
    tags = [None if label == IGNORED else case.names[label] for label in token_labels]
    words = ["O"] * len(case.labels)
    for word, (first, last) in case.spans.items():
        words[word] = oracles.merge(tags[first], tags[last], scheme=case.scheme)
    return [case.names.index(tag) for tag in words]


@check("A14", needs="merge_labels", pair=predictions())
def test_every_word_must_get_one_label_and_words_without_tokens_must_get_o(
    implementation: Subject, pair: tuple[Alignment, list[int]]
) -> None:
    case, tokens = pair
    came = merge(implementation, case, tokens)
    expect_that(len(came) == len(case.labels), expected=f"{len(case.labels)} labels", came=came)
    outside = case.names.index("O")
    unseen = [
        word for word in range(len(case.labels)) if word not in case.spans or tokens[case.spans[word][0]] == IGNORED
    ]
    expect_that(
        all(came[word] == outside for word in unseen),
        expected=f"{outside} (O) at each of {unseen}, words without a token or whose first token has -100",
        came=came,
    )


@check("A15", needs="merge_labels", pair=predictions())
def test_the_first_token_must_decide_the_label_of_a_word(
    implementation: Subject, pair: tuple[Alignment, list[int]]
) -> None:
    case, tokens = pair
    came = merge(implementation, case, tokens)
    expect(expected_words(case, tokens), came)


@check("A16", needs="merge_labels", kind="refusal", pair=predictions(), bad=st.sampled_from([-1, 0, 7]))
def test_merge_labels_must_refuse_a_label_id_outside_the_names(
    implementation: Subject, pair: tuple[Alignment, list[int]], bad: int
) -> None:
    case, tokens = pair
    if not case.labels:
        return
    bad = bad if bad < 0 else len(case.names) + bad
    case = case.with_token(len(case.labels) - 1)
    arguments = {**case.merging, "n_words": len(case.labels)}
    implementation.expect_refusal("merge_labels", [*tokens, bad], mentions=(len(tokens), bad), **arguments)


@check("A16", needs="merge_labels", kind="refusal", pair=predictions(), bad=st.sampled_from([-1, 0, 7]))
def test_merge_labels_must_refuse_a_word_id_outside_the_words(
    implementation: Subject, pair: tuple[Alignment, list[int]], bad: int
) -> None:
    case, tokens = pair
    bad = bad if bad < 0 else len(case.labels) + bad
    arguments = {**case.with_token(bad).merging, "n_words": len(case.labels)}
    labels = [*tokens, case.names.index("O")]
    implementation.expect_refusal("merge_labels", labels, mentions=(len(tokens), bad), **arguments)


@check(
    "A16",
    needs="merge_labels",
    kind="refusal",
    pair=misspelt_alignments(),
    bad=st.sampled_from(["IOB1", "iob2", "BIO"]),
)
def test_merge_labels_must_refuse_unknown_names_and_schemes(
    implementation: Subject, pair: tuple[Alignment, int], bad: str
) -> None:
    case, index = pair
    tokens = [IGNORED] * len(case.word_ids)
    arguments = {**case.merging, "n_words": len(case.labels)}
    implementation.expect_refusal("merge_labels", tokens, mentions=(index, case.names[index]), **arguments)
    arguments["names"] = [name for position, name in enumerate(case.names) if position != index]
    implementation.expect_refusal("merge_labels", tokens, mentions=(bad,), **arguments | {"scheme": bad})
    arguments["names"] = [name for name in arguments["names"] if name != "O"]
    implementation.expect_refusal("merge_labels", tokens, mentions=("O",), **arguments)


@check("A16", needs="merge_labels", kind="refusal", pair=predictions())
def test_merge_labels_must_refuse_different_lengths(implementation: Subject, pair: tuple[Alignment, list[int]]) -> None:
    case, tokens = pair
    size = len(tokens)
    arguments = {**case.merging, "n_words": len(case.labels)}
    implementation.expect_refusal("merge_labels", [*tokens, IGNORED], mentions=(size + 1, size), **arguments)
    sequence_ids = [*(case.sequence_ids or [None] * size), None]
    arguments |= {"sequence_ids": sequence_ids, "sequence": case.sequence}
    implementation.expect_refusal("merge_labels", tokens, mentions=(size, size + 1), **arguments)


@check("A16", needs="merge_labels", kind="form", pair=predictions())
def test_merge_labels_must_be_pure(implementation: Subject, pair: tuple[Alignment, list[int]]) -> None:
    case, tokens = pair
    arguments = {**case.merging, "n_words": len(case.labels)}
    expect_pure(implementation, "merge_labels", tokens, **arguments)
    expect_same_for_tuples_and_arrays(implementation, "merge_labels", tokens, **arguments)


@st.composite
def predicted_batches(draw: DrawFn) -> tuple[list[Alignment], list[list[int]]]:
    """A batch, and labels that a model could predict for its tokens."""
    cases = draw(alignment_batches())
    return cases, [draw(token_labels(case)) for case in cases]


@check("A16", needs="merge_labels merge_labels_batch", batch=predicted_batches())
def test_merge_labels_batch_must_equal_merge_labels(
    implementation: Subject, batch: tuple[list[Alignment], list[list[int]]]
) -> None:
    cases, tokens = batch
    if not cases:
        empty = Ragged.from_lists([])
        expect([], implementation.merge_labels_batch(empty, word_ids=empty, n_words=[], names=["O"]))
        return
    n_words = [len(case.labels) for case in cases]
    expected = [
        implementation.merge_labels(row, n_words=n, **case.merging)
        for row, n, case in zip(tokens, n_words, cases, strict=True)
    ]
    arguments = shared_arguments(cases) | {"n_words": n_words}
    expect(expected, implementation.merge_labels_batch(Ragged.from_lists(tokens), **arguments))
    expect_pure(implementation, "merge_labels_batch", Ragged.from_lists(tokens), **arguments)
