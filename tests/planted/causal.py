"""Bugs of causal language modelling: cutting documents, labelling, weighing by key tokens."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any

import numpy as np

import touchstone.stages
from tests.independent.causal import causal_labels, chunk_documents, key_token_weights
from tests.planted.bug import planted

# What becomes of the remainder -------------------------------------------------------------------------------------


@planted("chunk_documents", caught_by="K4", evidence="course/6.mdx:223")
def documents_run_into_each_other(documents, *, length, remainder="drop", eos_id=None):
    """Documents that are to be cut separately are concatenated, without anything between them."""
    own = documents if remainder == "join" else [list(chain.from_iterable(documents))]
    return chunk_documents(own, length=length, remainder=remainder, eos_id=eos_id)


@planted("chunk_documents", caught_by="K1 K2", evidence="course/6.mdx:223")
def length_is_not_looked_at(documents, *, length, remainder="drop", eos_id=None):
    """The course's `if length == context_length` is left out: `drop` keeps every document's short last chunk."""
    remainder = "keep" if remainder == "drop" else remainder
    return chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)


@planted("chunk_documents", caught_by="K6", evidence="course/3.mdx:375 huggingface/transformers#18167")
def joined_in_map_batches(documents, *, length, remainder="drop", eos_id=None):
    """Documents are joined in batches, as `map` passes them, and each batch drops its own end."""
    size = len(documents) // 2 or 1
    batches = [documents[start : start + size] for start in range(0, len(documents) or 1, size)]
    options = {"length": length, "remainder": remainder, "eos_id": eos_id}
    return [row for batch in batches for row in chunk_documents(batch, **options)]


@planted("chunk_documents", caught_by="K2 K7", evidence="huggingface/transformers#17882 huggingface/transformers#23424")
def less_than_one_chunk_is_kept(documents, *, length, remainder="drop", eos_id=None):
    """As run_clm's `if total_length >= block_size`: input that does not fill a chunk is returned as a short one."""
    chunks = chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)
    own = [token for document in documents for token in [*document, *([] if eos_id is None else [eos_id])]]
    return [[int(token) for token in own]] if own and not chunks else chunks


@planted("chunk_documents", caught_by="K2 K7")
def short_documents_vanish_although_kept(documents, *, length, remainder="drop", eos_id=None):
    """With `keep`, a document shorter than a chunk is skipped, as with `drop`."""
    if remainder == "keep":
        documents = [document for document in documents if len(document) >= length]
    return chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)


@planted("chunk_documents", caught_by="K2")
def documents_full_last_chunk_dropped(documents, *, length, remainder="drop", eos_id=None):
    """`range(0, n - length, length)`: a document that fills its chunks loses the last of them."""
    if remainder == "drop":
        documents = [document[: len(document) - (len(document) % length == 0)] for document in documents]
    return chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)


@planted("chunk_documents", caught_by="K1 K7")
def empty_documents_give_empty_chunks(documents, *, length, remainder="drop", eos_id=None):
    """With `keep`, a document of no tokens becomes a chunk of none."""
    if remainder != "keep":
        return chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)
    chunks = [chunk_documents([document], length=length, remainder="keep") or [[]] for document in documents]
    return [row for rows in chunks for row in rows]


@planted("chunk_documents", caught_by="K3")
def remainders_at_the_end(documents, *, length, remainder="drop", eos_id=None):
    """Full chunks first and short ones last, as when overflowing tokens are collected separately."""
    chunks = chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)
    return sorted(chunks, key=lambda row: len(row) < length)


@planted("chunk_documents", caught_by="K3 K4")
def chunks_overlap_by_a_token(documents, *, length, remainder="drop", eos_id=None):
    """Each chunk begins with the last token of the one before, so that this one is also predicted."""
    chunks = chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)
    return chunks[:1] + [[before[-1], *row[:-1]] for before, row in pairwise(chunks)]


# The end of text ---------------------------------------------------------------------------------------------------


@planted("chunk_documents", caught_by="K5")
def no_end_of_text_between_documents(documents, *, length, remainder="drop", eos_id=None):
    """Joined documents follow each other without an end of text: the model cannot see where a text ends."""
    if remainder == "join":
        return chunk_documents([list(chain.from_iterable(documents))], length=length)
    return chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)


@planted("chunk_documents", caught_by="K5")
def end_of_text_only_between(documents, *, length, remainder="drop", eos_id=None):
    """The last document is not closed: nothing follows it, so nothing is appended."""
    if remainder != "join" or not len(documents):
        return chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)
    joined = [*chain.from_iterable([*document, eos_id] for document in documents[:-1]), *documents[-1]]
    return chunk_documents([joined], length=length)


@planted("chunk_documents", caught_by="K5")
def end_of_text_in_front_too(documents, *, length, remainder="drop", eos_id=None):
    """The text begins with an end of text, as if the tokenizer added a beginning of text."""
    documents = [[], *documents] if remainder == "join" else documents
    return chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)


@planted("chunk_documents", caught_by="K5 K8")
def id_zero_is_no_id(documents, *, length, remainder="drop", eos_id=None):
    """`if eos_id:` tests the truth of the id: 0, a valid id, is none."""
    if remainder == "join" and not eos_id:
        return chunk_documents([list(chain.from_iterable(documents))], length=length)
    return chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id or None)


@planted("chunk_documents", caught_by="K5")
def empty_documents_are_not_closed(documents, *, length, remainder="drop", eos_id=None):
    """Documents of no tokens are skipped, and with them their end of text."""
    documents = [document for document in documents if len(document)]
    return chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)


# Manners of chunking -----------------------------------------------------------------------------------------------


@planted("chunk_documents", caught_by="K8")
def context_of_zero_is_one(documents, *, length, **options):
    """A length below 1 is silently raised to 1."""
    return chunk_documents(documents, length=max(1, length), **options)


@planted("chunk_documents", caught_by="K8")
def unknown_remainder_is_drop(documents, *, length, remainder="drop", eos_id=None):
    """Any value except `keep` and `join` drops the remainder."""
    remainder = remainder if remainder in ("keep", "join") else "drop"
    return chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)


@planted("chunk_documents", caught_by="K8")
def useless_end_of_text_is_ignored(documents, *, length, remainder="drop", eos_id=None):
    """An unused end of text is silently accepted, so that a forgotten `join` goes unnoticed."""
    return chunk_documents(
        documents, length=length, remainder=remainder, eos_id=eos_id if remainder == "join" else None
    )


@planted("chunk_documents", caught_by="K9")
def end_of_text_appended_in_place(documents, *, length, remainder="drop", eos_id=None):
    """The end of text is appended to the caller's documents: a second call finds two."""
    result = chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)
    for document in documents:
        if remainder == "join" and isinstance(document, list):
            document.append(eos_id)
    return result


@planted("chunk_documents", caught_by="K9")
def short_documents_handed_through(documents, *, length, remainder="drop", eos_id=None):
    """A document that is one chunk is returned itself, not a copy of it."""
    result = chunk_documents(documents, length=length, remainder=remainder, eos_id=eos_id)
    own = [document for document in documents if isinstance(document, list)]
    return [next((document for document in own if document == row), row) for row in result]


@planted("chunk_documents", caught_by="K9")
def array_of_tokens_asked_whether_it_is_true(documents, **options):
    """`if document`, meant for empty lists, raises for an array of tokens."""
    return chunk_documents([document if document else [] for document in documents], **options)


@planted("chunk_documents_batch", caught_by="K10", base=touchstone.stages)
def twin_cuts_at_offsets_of_all_tokens(documents, *, length, remainder="drop", eos_id=None):
    """The batched version cuts at multiples of the length in the flat array, wherever documents begin."""
    flat = documents.values if eos_id is None else np.insert(documents.values, documents.offsets[1:], eos_id)
    whole = len(flat) if remainder == "keep" else len(flat) // length * length
    rows = [flat[start : start + length].copy() for start in range(0, whole, length)]
    return type(documents).from_arrays(rows)


# Labels ------------------------------------------------------------------------------------------------------------


@planted(
    "causal_labels",
    caught_by="K11 K12",
    evidence="huggingface/transformers#23530 huggingface/trl#976 course/6.mdx:331",
)
def padding_told_by_its_id(input_ids, *, attention_mask):
    """As DataCollatorForLanguageModeling: every padding id gets -100, and so does each real end of text."""
    labels = causal_labels(input_ids, attention_mask=attention_mask)
    padding = np.asarray(input_ids)[np.asarray(attention_mask) == 0]
    for pad_id in set(padding.tolist()):
        labels[labels == pad_id] = -100
    return labels


@planted("causal_labels", caught_by="K11")
def padding_is_supervised(input_ids, *, attention_mask):
    """`labels = input_ids.clone()`, and the mask is ignored: the model learns to pad."""
    causal_labels(input_ids, attention_mask=attention_mask)
    return np.array(input_ids)


@planted("causal_labels", caught_by="K11")
def causal_labels_shifted_twice(input_ids, *, attention_mask):
    """The labels are shifted by one here, and once more by the model: it learns to predict the token after next."""
    labels = causal_labels(input_ids, attention_mask=attention_mask).numpy()
    return np.concatenate([labels[:, 1:], np.full_like(labels[:, :1], -100)], axis=1)


@planted("causal_labels", caught_by="K11 K12")
def last_token_never_supervised(input_ids, *, attention_mask):
    """The last real token gets -100, as if nothing could be predicted there: it can, by the token before it."""
    labels = causal_labels(input_ids, attention_mask=attention_mask).numpy()
    for row in labels:
        row[np.flatnonzero(row != -100)[-1:]] = -100
    return labels


@planted("causal_labels", caught_by="K11")
def padding_taken_for_on_the_right(input_ids, *, attention_mask):
    """Each row's first tokens are labelled, as many as the mask has ones: wrong where the left is padded."""
    labels = causal_labels(input_ids, attention_mask=attention_mask).numpy()
    sizes = np.asarray(attention_mask).sum(axis=1, keepdims=True)
    return np.where(np.arange(labels.shape[1]) < sizes, np.asarray(input_ids), -100)


@planted("causal_labels", caught_by="K13")
def mask_is_broadcast(input_ids, *, attention_mask):
    """A mask of another shape is cut, or repeated, until it fits."""
    ids = np.asarray(input_ids)
    mask = np.resize(np.asarray([row[: ids.shape[1]] for row in attention_mask])[: len(ids)], ids.shape)
    return causal_labels(input_ids, attention_mask=mask)


@planted("causal_labels", caught_by="K13")
def anything_true_is_a_token(input_ids, *, attention_mask):
    """2 and -100 in a mask are treated as 1."""
    return causal_labels(input_ids, attention_mask=[[bool(cell) for cell in row] for row in attention_mask])


@planted("causal_labels", caught_by="K14")
def labelled_in_place(input_ids, *, attention_mask):
    """`labels = input_ids` is no copy: the padding of the input becomes -100 too, which no embedding has."""
    labels = causal_labels(input_ids, attention_mask=attention_mask)
    if not isinstance(input_ids, np.ndarray):
        return labels
    input_ids[...] = labels.numpy()
    return input_ids


@planted("causal_labels", caught_by="K14")
def indexed_like_an_array_of_two_dimensions(input_ids, *, attention_mask):
    """`attention_mask[:, 0]` is what arrays know, and lists of lists do not."""
    assert attention_mask[:, 0] is not None
    return causal_labels(input_ids, attention_mask=attention_mask)


# Weights -----------------------------------------------------------------------------------------------------------


@planted("key_token_weights", caught_by="K15 K16", evidence="course/6.mdx:694-697")
def listed_twice_counts_twice(input_ids, *, key_ids, alpha=1.0):
    """As the course's loss: one comparison for each key id, summed: one listed twice counts twice."""
    key_token_weights(input_ids, key_ids=key_ids, alpha=alpha)
    ids = np.asarray(input_ids)
    return alpha * (1.0 + sum((ids == key).sum(axis=1) for key in key_ids) + np.zeros(len(ids)))


@planted("key_token_weights", caught_by="K15")
def each_key_counts_once_a_row(input_ids, *, key_ids, alpha=1.0):
    """How many different key ids a row holds, not at how many places."""
    return key_token_weights([_first_of_each(row) for row in input_ids], key_ids=key_ids, alpha=alpha)


def _first_of_each(row: Any) -> list[int]:
    """Replace every repeated token of the row by 10^9, which is no real id."""
    seen: set[int] = set()
    return [10**9 if token in seen or seen.add(int(token)) else int(token) for token in row]  # type: ignore[func-returns-value]


@planted("key_token_weights", caught_by="K15")
def rows_without_key_tokens_weigh_nothing(input_ids, *, key_ids, alpha=1.0):
    """alpha * count without the 1: examples without a key token are not trained on at all."""
    return key_token_weights(input_ids, key_ids=key_ids, alpha=alpha) - alpha


@planted("key_token_weights", caught_by="K15")
def alpha_scales_the_count_alone(input_ids, *, key_ids, alpha=1.0):
    """1 + alpha * count instead of alpha * (1 + count)."""
    return 1 + key_token_weights(input_ids, key_ids=key_ids, alpha=alpha) - alpha


@planted("key_token_weights", caught_by="K15 K17")
def weights_normalised_over_the_batch(input_ids, *, key_ids, alpha=1.0):
    """The weights are divided by their mean: what an example counts depends on its neighbours, and so on the batch."""
    weights = key_token_weights(input_ids, key_ids=key_ids, alpha=alpha).numpy()
    return weights / weights.mean() if weights.any() else weights


@planted("key_token_weights", caught_by="K18")
def negative_weight_accepted(input_ids, *, key_ids, alpha=1.0):
    """A negative alpha, with which the model would unlearn, is taken."""
    return alpha * key_token_weights(input_ids, key_ids=key_ids).numpy()


@planted("key_token_weights", caught_by="K18")
def unknown_key_is_skipped(input_ids, *, key_ids, alpha=1.0):
    """A negative id, as a vocabulary's look-up of an unknown token may give, is silently left out."""
    return key_token_weights(input_ids, key_ids=[key for key in key_ids if key >= 0], alpha=alpha)


@planted("key_token_weights", caught_by="K18")
def flat_ids_are_one_row(input_ids, *, key_ids, alpha=1.0):
    """One sequence instead of a batch is treated as a batch of one."""
    return key_token_weights(np.atleast_2d(input_ids), key_ids=key_ids, alpha=alpha)


@planted("key_token_weights", caught_by="K18")
def key_ids_made_unique_in_place(input_ids, *, key_ids, alpha=1.0):
    """Repeated ids are taken out of the caller's list."""
    weights = key_token_weights(input_ids, key_ids=key_ids, alpha=alpha)
    if isinstance(key_ids, list):
        key_ids[:] = sorted(set(key_ids))
    return weights


@planted("key_token_weights", caught_by="K18")
def key_ids_tested_for_truth(input_ids, *, key_ids, alpha=1.0):
    """`if not key_ids`, meant for an empty list, raises for an array."""
    return key_token_weights(input_ids, key_ids=key_ids if key_ids else [], alpha=alpha)
