"""Throughput of language modelling: chunks of texts, masked batches, and weights of chunks."""

from __future__ import annotations

from functools import partial
from typing import Any

import datasets
import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling

from touchstone.pipelines.tokenizing import tokenize, tokenize_parts
from touchstone.records.timing import Goal, Peer
from touchstone.stages import (
    causal_labels,
    chunk_batch,
    chunk_documents_batch,
    key_token_weights,
    mask_tokens_batch,
)
from touchstone.stages.ragged import Array, Ragged
from touchstone.suite.throughput import course
from touchstone.suite.throughput.conftest import TimeStage
from touchstone.suite.throughput.data import Data, Texts, repeated
from touchstone.suite.throughput.measuring import Call, Method
from touchstone.suite.throughput.test_words import copy

LENGTH = 128
BATCH = 32
MASKED_BATCHES = 20
TOKENIZED = 1_000
"""Number of texts that the tokenizer is timed on."""
COURSE_ROWS = 1_000
"""Number of documents for the course's `group_texts`: one batch of its `map`; all batches cost the same."""


def tokenizer_on(texts: Texts, *, rows: int) -> Method:
    chosen = texts.texts[:rows]
    rust = texts.tokenizer.backend_tokenizer

    def bare() -> object:
        rust.no_truncation()
        rust.no_padding()
        return rust.encode_batch(chosen)

    return Method("Tokenizer.encode_batch", bare, int(texts.columns["input_ids"].offsets[len(chosen)]))


def test_tokenize_text(time_stage: TimeStage, data: Data) -> None:
    reviews = data.reviews
    rows = min(TOKENIZED, len(reviews.texts))
    texts, tokenizer = reviews.texts[:rows], reviews.tokenizer
    bare = tokenizer_on(reviews, rows=rows)
    time_stage(
        "tokenize-text",
        ours=Method("tokenize", lambda: tokenize(tokenizer, texts, pretokenized=False, max_length=None), bare.tokens),
        peers={
            "tokenizer": bare,
            "course": Method(
                "Dataset.map of tokenize_text",
                lambda: course.mapped(
                    lambda batch: course.tokenize_text(batch, tokenizer), reviews.data.select(range(rows))
                ),
                bare.tokens,
            ),
        },
    )


def test_chunk(time_stage: TimeStage, data: Data) -> None:
    """Chunk all documents at once. The course's code, whose cost grows with the batch of `map`, gets one full batch."""
    reviews = data.reviews
    columns = reviews.columns
    rows = min(COURSE_ROWS, len(reviews.texts))
    tokenized = datasets.Dataset.from_dict(
        {name: column.take(np.arange(rows)).to_lists() for name, column in columns.items()}
    )

    def at(tokens: int) -> tuple[Call, int]:
        more = repeated(reviews.columns, tokens)
        return lambda: chunk_batch(more, length=LENGTH), len(more["input_ids"].values)

    time_stage(
        "chunk",
        ours=Method(
            f"chunk_batch of {len(reviews.texts):,} documents",
            lambda: chunk_batch(reviews.columns, length=LENGTH),
            len(reviews.columns["input_ids"].values),
        ),
        peers={
            "tokenizer": tokenizer_on(reviews, rows=min(TOKENIZED, len(reviews.texts))),
            "course": Method(
                f"Dataset.map of group_texts, {rows:,} documents",
                lambda: course.mapped(partial(course.group_texts, length=LENGTH), tokenized),
                int(columns["input_ids"].offsets[rows]),
            ),
            "copy": copy(reviews.columns),
        },
        goal=Goal(peer="course", most=0.01),
        growth=at,
    )


def _mask(
    chunks: dict[str, Ragged], *, mask_id: int, vocabulary: Array, whole: bool, examples: Array
) -> tuple[Ragged, Ragged]:
    return mask_tokens_batch(
        chunks["input_ids"],
        special=chunks["special_tokens_mask"],
        mask_id=mask_id,
        vocabulary=vocabulary,
        word_ids=chunks["word_ids"] if whole else None,
        seed=1,
        epoch=0,
        examples=examples,
    )


def masking(time_stage: TimeStage, data: Data, *, whole: bool) -> None:
    """Mask batches of the size that a data loader requests."""
    reviews = data.reviews
    chunks = chunk_batch(reviews.columns, length=LENGTH)
    count = min(len(chunks["input_ids"]) // BATCH, MASKED_BATCHES)
    groups = [np.arange(number * BATCH, (number + 1) * BATCH) for number in range(count)]
    parts = [{name: column.take(group) for name, column in chunks.items()} for group in groups]
    tokens = count * BATCH * LENGTH
    tokenizer = reviews.tokenizer
    mask = partial(
        _mask, mask_id=tokenizer.mask_token_id, vocabulary=np.arange(5, len(tokenizer), dtype=np.int64), whole=whole
    )

    def at(wanted: int) -> tuple[Call, int]:
        more = repeated(chunks, wanted)
        examples = np.arange(len(more["input_ids"]))
        return lambda: mask(more, examples=examples), len(more["input_ids"].values)

    lists = [
        [
            {
                "input_ids": part["input_ids"][row].tolist(),
                "labels": part["input_ids"][row].tolist(),
                "word_ids": [None if word < 0 else word for word in part["word_ids"][row].tolist()],
            }
            for row in range(BATCH)
        ]
        for part in parts
    ]
    tensors = [[{"input_ids": feature["input_ids"]} for feature in batch] for batch in lists]
    collator = DataCollatorForLanguageModeling(tokenizer)

    def by_course() -> object:
        made: list[Any] = [[{name: list(row) for name, row in f.items()} for f in batch] for batch in lists]
        return [course.mask_whole_words(batch, mask_id=tokenizer.mask_token_id) for batch in made]

    peers: dict[Peer, Method] = {"tokenizer": tokenizer_on(reviews, rows=min(TOKENIZED, len(reviews.texts)))}
    if whole:
        peers["course"] = Method("whole_word_masking_data_collator", by_course, tokens)
    else:
        peers["library"] = Method(
            "DataCollatorForLanguageModeling", lambda: [collator(batch) for batch in tensors], tokens
        )
    ids = [part["input_ids"].values for part in parts]
    peers["copy"] = Method("two copies of the tokens", lambda: [(row.copy(), row.copy()) for row in ids], tokens)

    def ours() -> object:
        pairs = zip(parts, groups, strict=True)
        return [mask(part, examples=group) for part, group in pairs]

    time_stage(
        "mask-words" if whole else "mask-tokens",
        ours=Method(f"mask_tokens_batch, batches of {BATCH}", ours, tokens),
        peers=peers,
        goal=Goal(peer="tokenizer", most=0.1) if whole else None,
        growth=at,
    )


def test_mask_tokens(time_stage: TimeStage, data: Data) -> None:
    masking(time_stage, data, whole=False)


def test_mask_words(time_stage: TimeStage, data: Data) -> None:
    masking(time_stage, data, whole=True)


def test_tokenize_and_cut(time_stage: TimeStage, data: Data) -> None:
    """From text to chunks, because the course truncates inside the tokenizer."""
    programs = data.programs
    tokenizer, texts = programs.tokenizer, programs.texts
    tokens = len(programs.columns["input_ids"].values)

    def ours() -> object:
        return chunk_documents_batch(tokenize_parts(tokenizer, texts, offsets=False)["input_ids"], length=LENGTH)

    def by_course() -> object:
        cut = partial(course.tokenize_code, tokenizer=tokenizer, length=LENGTH)
        return course.mapped(lambda batch: cut(batch), programs.data)

    time_stage(
        "tokenize-and-cut",
        ours=Method("tokenize_parts, chunk_documents_batch", ours, tokens),
        peers={
            "tokenizer": tokenizer_on(programs, rows=len(texts)),
            "course": Method("Dataset.map of tokenize_code", by_course, tokens),
        },
    )


def test_cut_documents(time_stage: TimeStage, data: Data) -> None:
    documents = data.programs.columns["input_ids"]

    def at(tokens: int) -> tuple[Call, int]:
        more = repeated({"input_ids": documents}, tokens)["input_ids"]
        return lambda: chunk_documents_batch(more, length=LENGTH), len(more.values)

    time_stage(
        "cut-documents",
        ours=Method(
            "chunk_documents_batch", lambda: chunk_documents_batch(documents, length=LENGTH), len(documents.values)
        ),
        peers={
            "tokenizer": tokenizer_on(data.programs, rows=len(data.programs.texts)),
            "copy": copy({"input_ids": documents}),
        },
        growth=at,
    )


def test_causal_labels(time_stage: TimeStage, data: Data) -> None:
    chunks = chunk_documents_batch(data.programs.columns["input_ids"], length=LENGTH)
    count = len(chunks) // BATCH * BATCH
    ids = chunks.values[: count * LENGTH].reshape(-1, BATCH, LENGTH)
    tokenizer = data.programs.tokenizer
    ones = np.ones((BATCH, LENGTH), np.int64)
    lists = [[{"input_ids": row} for row in batch] for batch in ids.tolist()]
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)

    def by_library() -> object:
        return [collator(batch) for batch in lists]

    time_stage(
        "causal-labels",
        ours=Method(
            f"causal_labels, batches of {BATCH}",
            lambda: [causal_labels(batch, attention_mask=ones) for batch in ids],
            ids.size,
        ),
        peers={"library": Method("DataCollatorForLanguageModeling(mlm=False)", by_library, ids.size)},
    )


def test_key_weights(time_stage: TimeStage, data: Data) -> None:
    chunks = chunk_documents_batch(data.programs.columns["input_ids"], length=LENGTH)
    count = len(chunks) // BATCH * BATCH
    ids = chunks.values[: count * LENGTH].reshape(-1, BATCH, LENGTH)
    keys = [int(token) for token in np.unique(ids)[:8]]
    tensors = [torch.from_numpy(batch) for batch in ids]

    time_stage(
        "key-weights",
        ours=Method(
            f"key_token_weights, batches of {BATCH}",
            lambda: [key_token_weights(batch, key_ids=keys) for batch in ids],
            ids.size,
        ),
        peers={
            "course": Method(
                "a stack of comparisons", lambda: [course.key_weights(batch, keys) for batch in tensors], ids.size
            )
        },
    )
