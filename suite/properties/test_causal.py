"""Checks K1-K18 of docs/contract.md: `chunk_documents`, its batched version, `causal_labels`, `key_token_weights`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from touchstone.properties.check import check
from touchstone.properties.failure import expect, expect_that
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.chunking import (
    EOS,
    PaddedIds,
    Texts,
    Weighed,
    padded_ids,
    texts,
    texts_in_two,
    weighed,
)
from touchstone.properties.subject import Subject
from touchstone.stages.ragged import Ragged


def in_a_row(chunks: list[list[int]]) -> list[int]:
    return [token for chunk in chunks for token in chunk]


# Chunks ---------------------------------------------------------------------------------------------------------------


@check("K1", needs="chunk_documents", case=texts())
def test_every_chunk_of_documents_must_have_the_length(implementation: Subject, case: Texts) -> None:
    chunks = implementation.chunk_documents(case.documents, **case.arguments)
    last = {document[-1] for document in case.documents if document} if case.remainder == "keep" else set()
    for number, chunk in enumerate(chunks):
        short_end = 0 < len(chunk) < case.length and chunk[-1] in last
        expect_that(
            len(chunk) == case.length or short_end,
            expected=f"{case.length} tokens in chunk {number}"
            + (", or fewer, but not none, where a document ends" if case.remainder == "keep" else ""),
            came=f"{len(chunk)}: {chunk}",
        )


@check("K2", needs="chunk_documents", case=texts())
def test_chunks_of_documents_must_lose_only_the_declared_tokens(implementation: Subject, case: Texts) -> None:
    sizes = [len(document) for document in case.documents]
    held = sum(sizes) + (len(sizes) if case.remainder == "join" else 0)
    loss = {
        "drop": sum(size % case.length for size in sizes),
        "keep": 0,
        "join": held % case.length,
    }[case.remainder]
    came = in_a_row(implementation.chunk_documents(case.documents, **case.arguments))
    expect_that(
        len(came) == held - loss,
        expected=f"{held - loss} tokens: {held} minus the {loss} that {case.remainder!r} drops",
        came=f"{len(came)}: {came}",
    )


@check("K3", needs="chunk_documents", case=texts())
def test_chunks_of_documents_must_keep_the_order_of_the_tokens(implementation: Subject, case: Texts) -> None:
    came = in_a_row(implementation.chunk_documents(case.documents, **case.arguments))
    tokens = [token for token in case.expected if token != EOS]
    expect(
        tokens, [token for token in came if token != EOS], where="all tokens except those between documents, in order"
    )


@check("K4", needs="chunk_documents", case=texts(min_documents=1))
def test_a_chunk_must_not_span_two_documents_unless_they_are_joined(implementation: Subject, case: Texts) -> None:
    if case.remainder == "join":
        case = case.with_(remainder="drop")
    place = {token: (d, t) for d, document in enumerate(case.documents) for t, token in enumerate(document)}
    for chunk in implementation.chunk_documents(case.documents, **case.arguments):
        documents = {place[token][0] for token in chunk if token in place}
        begins = place.get(chunk[0], (0, None))[1] if chunk else None
        expect_that(
            len(documents) == 1 and begins is not None and begins % case.length == 0,
            expected=f"tokens of one document, beginning at a multiple of {case.length} tokens in it",
            came=f"{chunk}, of the documents {sorted(documents)}, beginning at its token {begins}",
        )


@check("K5", needs="chunk_documents", case=texts(remainder="join"))
def test_each_joined_document_must_be_followed_by_one_end_of_text(implementation: Subject, case: Texts) -> None:
    expect(case.expected, in_a_row(implementation.chunk_documents(case.documents, **case.arguments)))


@check("K6", needs="chunk_documents", drawn=texts_in_two())
def test_the_chunks_of_a_document_must_not_depend_on_later_documents(
    implementation: Subject, drawn: tuple[Texts, int]
) -> None:
    case, first = drawn
    whole = implementation.chunk_documents(case.documents, **case.arguments)
    part = implementation.chunk_documents(case.documents[:first], **case.arguments)
    expect(part, whole[: len(part)], where=f"the chunks of the first {first} documents alone, and those of all")
    if case.remainder != "join":
        rest = implementation.chunk_documents(case.documents[first:], **case.arguments)
        expect([*part, *rest], whole, where=f"in two batches of {first} and {len(case.documents) - first} documents")


@check("K7", needs="chunk_documents", case=texts(), extra=st.integers(2, 20))
def test_short_empty_and_no_documents_must_be_valid(implementation: Subject, case: Texts, extra: int) -> None:
    """No document fills a chunk, and neither do all documents joined."""
    case = case.with_(length=len(case.joined) + extra)
    whole = [document for document in case.documents if document] if case.remainder == "keep" else []
    expect(whole, implementation.chunk_documents(case.documents, **case.arguments))


@check("K8", needs="chunk_documents", kind="refusal", case=texts(), length=st.integers(-3, 0))
def test_chunk_documents_must_refuse_a_length_below_one(implementation: Subject, case: Texts, length: int) -> None:
    arguments = case.arguments | {"length": length}
    implementation.expect_refusal("chunk_documents", case.documents, mentions=(length,), **arguments)


@check(
    "K8", needs="chunk_documents", kind="refusal", case=texts(), remainder=st.sampled_from(["cut", "DROP", "pad", ""])
)
def test_chunk_documents_must_refuse_an_unknown_remainder(implementation: Subject, case: Texts, remainder: str) -> None:
    arguments = case.arguments | {"remainder": remainder}
    implementation.expect_refusal("chunk_documents", case.documents, mentions=(remainder,), **arguments)


@check("K8", needs="chunk_documents", kind="refusal", case=texts(), left_out=st.booleans())
def test_chunk_documents_must_refuse_a_missing_or_unused_end_of_text(
    implementation: Subject, case: Texts, left_out: bool
) -> None:
    arguments: dict[str, Any] = case.arguments | {"eos_id": None if case.remainder == "join" else EOS}
    if left_out and case.remainder == "join":
        del arguments["eos_id"]
    implementation.expect_refusal("chunk_documents", case.documents, mentions=("eos_id",), **arguments)


@check("K9", needs="chunk_documents", kind="form", case=texts())
def test_chunk_documents_must_be_pure(implementation: Subject, case: Texts) -> None:
    expect_pure(implementation, "chunk_documents", case.documents, **case.arguments)


@check("K9", needs="chunk_documents", kind="form", case=texts())
def test_chunk_documents_must_accept_tuples_and_arrays(implementation: Subject, case: Texts) -> None:
    expect_same_for_tuples_and_arrays(implementation, "chunk_documents", case.documents, **case.arguments)


@check("K10", needs="chunk_documents chunk_documents_batch", case=texts())
def test_chunk_documents_batch_must_equal_chunk_documents(implementation: Subject, case: Texts) -> None:
    expected = implementation.chunk_documents(case.documents, **case.arguments)
    documents = Ragged.from_lists(case.documents)
    expect(expected, implementation.chunk_documents_batch(documents, **case.arguments))
    expect_pure(implementation, "chunk_documents_batch", documents, **case.arguments)


# Labels ---------------------------------------------------------------------------------------------------------------


@check("K11", needs="causal_labels", case=padded_ids())
def test_causal_labels_must_be_the_tokens_and_ignored_exactly_where_the_mask_is_zero(
    implementation: Subject, case: PaddedIds
) -> None:
    expect(case.expected, implementation.causal_labels(case.input_ids, **case.arguments))


@check("K12", needs="causal_labels", case=padded_ids(ends=True))
def test_a_real_end_of_text_must_have_a_label_even_if_its_id_is_the_padding(
    implementation: Subject, case: PaddedIds
) -> None:
    labels = implementation.causal_labels(case.input_ids, **case.arguments)
    implementation.remark(end_of_text=f"{case.pad_id}, which also pads")
    for number, (row, mask) in enumerate(zip(labels, case.attention_mask, strict=True)):
        last = len(mask) - 1 - mask[::-1].index(1)
        expect(case.pad_id, row[last], where=f"the label of the last real token of row {number}")


@check(
    "K13",
    needs="causal_labels",
    kind="refusal",
    case=padded_ids(),
    fault=st.sampled_from(["row", "column", "two", "minus", "ignored"]),
)
def test_causal_labels_must_refuse_a_mask_with_another_shape_or_other_values(
    implementation: Subject, case: PaddedIds, fault: str
) -> None:
    mask = [list(row) for row in case.attention_mask]
    mentions: tuple[object, ...] = ()
    if fault == "row":
        mask.append(list(mask[-1]))
    elif fault == "column":
        mask = [[*row, 0] for row in mask]
    else:
        mask[-1][-1] = {"two": 2, "minus": -1, "ignored": -100}[fault]
        mentions = (mask[-1][-1],)
    implementation.expect_refusal("causal_labels", case.input_ids, attention_mask=mask, mentions=mentions)


@check("K14", needs="causal_labels", kind="form", case=padded_ids())
def test_causal_labels_must_be_pure(implementation: Subject, case: PaddedIds) -> None:
    expect_pure(implementation, "causal_labels", case.input_ids, **case.arguments)
    arrays = (
        np.array(case.input_ids),
        np.array(case.attention_mask),
    )  # as a collator has them: an implementation may return them unchanged
    expect_pure(implementation, "causal_labels", arrays[0], attention_mask=arrays[1])


@check("K14", needs="causal_labels", kind="form", case=padded_ids())
def test_causal_labels_must_accept_tuples_and_arrays(implementation: Subject, case: PaddedIds) -> None:
    expect_same_for_tuples_and_arrays(implementation, "causal_labels", case.input_ids, **case.arguments)


# Weights --------------------------------------------------------------------------------------------------------------


@check("K15", needs="key_token_weights", case=weighed())
def test_weights_must_agree_with_an_independent_count(implementation: Subject, case: Weighed) -> None:
    expected = [case.alpha * (1 + count) for count in case.places]
    expect(expected, implementation.key_token_weights(case.input_ids, **case.arguments))


@check("K16", needs="key_token_weights", case=weighed(), times=st.integers(2, 3))
def test_a_key_id_must_count_once_even_if_it_is_listed_twice(
    implementation: Subject, case: Weighed, times: int
) -> None:
    expected = implementation.key_token_weights(case.input_ids, **case.arguments)
    for keys in (case.key_ids * times, case.key_ids[::-1]):
        came = implementation.key_token_weights(case.input_ids, **case.arguments | {"key_ids": keys})
        expect(expected, came, where=f"key_ids {case.key_ids} and {keys}")


@check("K17", needs="key_token_weights", case=weighed())
def test_the_weight_of_a_row_must_depend_only_on_that_row(implementation: Subject, case: Weighed) -> None:
    together = implementation.key_token_weights(case.input_ids, **case.arguments)
    alone = [implementation.key_token_weights([row], **case.arguments)[0] for row in case.input_ids]
    expect(alone, together, where="each row alone, and all in one batch")


@check(
    "K18", needs="key_token_weights", kind="refusal", case=weighed(), fault=st.sampled_from(["alpha", "key", "flat"])
)
def test_key_token_weights_must_refuse_invalid_input(implementation: Subject, case: Weighed, fault: str) -> None:
    arguments: dict[str, Any] = case.arguments
    ids: Any = case.input_ids
    mentions: tuple[object, ...] = ()
    if fault == "alpha":
        arguments["alpha"] = -0.5
        mentions = (-0.5,)
    elif fault == "key":
        arguments["key_ids"] = [*case.key_ids, -1]
        mentions = (-1,)
    else:
        ids = ids[0]
    implementation.expect_refusal("key_token_weights", ids, mentions=mentions, **arguments)


@check("K18", needs="key_token_weights", kind="form", case=weighed())
def test_key_token_weights_must_be_pure(implementation: Subject, case: Weighed) -> None:
    expect_pure(implementation, "key_token_weights", case.input_ids, **case.arguments)


@check("K18", needs="key_token_weights", kind="form", case=weighed())
def test_key_token_weights_must_accept_tuples_and_arrays(implementation: Subject, case: Weighed) -> None:
    expect_same_for_tuples_and_arrays(implementation, "key_token_weights", case.input_ids, **case.arguments)
