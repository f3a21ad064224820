"""Throughput of token classification: labels of tokens, padding, labels of words, and scores of entities."""

from __future__ import annotations

import numpy as np
from transformers import DataCollatorForTokenClassification

from touchstone.pipelines.tokenizing import tokenize
from touchstone.records.timing import Goal
from touchstone.stages import align_labels_batch, merge_labels_batch, pad_batch, score_entities
from touchstone.stages.ragged import Ragged
from touchstone.suite.throughput import course
from touchstone.suite.throughput.conftest import TimeStage
from touchstone.suite.throughput.data import Data, batches, repeated
from touchstone.suite.throughput.measuring import Call, Method

BATCH = 16


def copy(columns: dict[str, Ragged]) -> Method:
    """Copy the columns: the least that producing them can cost."""
    arrays = [column.values for column in columns.values()]
    return Method("a copy of the columns", lambda: [array.copy() for array in arrays], len(arrays[0]))


def test_tokenize_and_align(time_stage: TimeStage, data: Data) -> None:
    """From lists of words to tokens with labels. The bare tokenizer only makes its own encodings."""
    sentences = data.sentences
    tokenizer, words, names = sentences.tokenizer, sentences.words, sentences.names
    tokens = len(sentences.columns["input_ids"].values)
    rust = tokenizer.backend_tokenizer

    def ours() -> object:
        columns = tokenize(tokenizer, words, pretokenized=True, max_length=None)
        return align_labels_batch(sentences.gold, word_ids=columns["word_ids"], names=names)

    def bare() -> object:
        rust.no_truncation()
        rust.no_padding()
        return rust.encode_batch(words, is_pretokenized=True)

    time_stage(
        "tokenize-and-align",
        ours=Method("tokenize, align_labels_batch", ours, tokens),
        peers={
            "tokenizer": Method("Tokenizer.encode_batch", bare, tokens),
            "course": Method(
                "Dataset.map of tokenize_and_align",
                lambda: course.mapped(lambda rows: course.tokenize_and_align(rows, tokenizer), sentences.data),
                tokens,
            ),
            "copy": copy(sentences.columns),
        },
        goal=Goal(peer="tokenizer", most=1 / 0.9),  # at least nine tenths of its speed
    )


def test_align(time_stage: TimeStage, data: Data) -> None:
    sentences = data.sentences
    gold, words, names = sentences.gold, sentences.columns["word_ids"], sentences.names
    lists, ids = gold.to_lists(), [[None if word < 0 else word for word in row] for row in words.to_lists()]
    tokens = len(words.values)

    def at(tokens: int) -> tuple[Call, int]:
        rows = repeated({"word_ids": words}, tokens)["word_ids"]
        labels = gold.take(np.resize(np.arange(len(gold)), len(rows)))
        return lambda: align_labels_batch(labels, word_ids=rows, names=names), len(rows.values)

    time_stage(
        "align",
        ours=Method(
            "align_labels_batch", lambda: align_labels_batch(gold, word_ids=words, names=names), len(words.values)
        ),
        peers={
            "course": Method(
                "a loop over tokens",
                lambda: [course.continued_labels(row, of) for row, of in zip(lists, ids, strict=True)],
                tokens,
            ),
            "copy": copy({"word_ids": words}),
        },
        growth=at,
    )


def test_merge(time_stage: TimeStage, data: Data) -> None:
    sentences = data.sentences
    gold, words, names = sentences.gold, sentences.columns["word_ids"], sentences.names
    labels = align_labels_batch(gold, word_ids=words, names=names)
    padded = pad_batch([{"labels": row} for row in labels], pad_id=0)["labels"]

    def at(tokens: int) -> tuple[Call, int]:
        columns = repeated({"word_ids": words, "labels": labels}, tokens)
        counts = np.resize(gold.lengths, len(columns["labels"]))
        rows = columns["word_ids"]
        return lambda: merge_labels_batch(columns["labels"], word_ids=rows, n_words=counts, names=names), len(
            rows.values
        )

    time_stage(
        "merge",
        ours=Method(
            "merge_labels_batch",
            lambda: merge_labels_batch(labels, word_ids=words, n_words=gold.lengths, names=names),
            len(labels.values),
        ),
        peers={
            "course": Method(
                "lists of names", lambda: course.names_of_labels(padded, padded, names), len(labels.values)
            ),
            "copy": copy({"labels": labels}),
        },
        growth=at,
    )


def test_pad(time_stage: TimeStage, data: Data) -> None:
    sentences = data.sentences
    labels = align_labels_batch(sentences.gold, word_ids=sentences.columns["word_ids"], names=sentences.names)
    columns = {"input_ids": sentences.columns["input_ids"], "labels": labels}
    made = batches(columns, size=BATCH, most=100)
    lists = [[{name: row.tolist() for name, row in feature.items()} for feature in batch] for batch in made]
    collator = DataCollatorForTokenClassification(sentences.tokenizer)
    pad_id = int(sentences.tokenizer.pad_token_id)
    ones = [
        [{**feature, "attention_mask": np.ones(len(feature["input_ids"]), np.int64)} for feature in batch]
        for batch in made
    ]
    tokens = sum(len(feature["input_ids"]) for batch in made for feature in batch)
    padded = [pad_batch(batch, pad_id=pad_id) for batch in ones]

    time_stage(
        "pad",
        ours=Method(
            f"pad_batch, batches of {BATCH}", lambda: [pad_batch(batch, pad_id=pad_id) for batch in ones], tokens
        ),
        peers={
            "library": Method(
                "DataCollatorForTokenClassification",
                lambda: [collator([dict(feature) for feature in batch]) for batch in lists],
                tokens,
            ),
            "copy": Method(
                "a copy of the batches", lambda: [[a.copy() for a in batch.values()] for batch in padded], tokens
            ),
        },
    )


def test_score_entities(time_stage: TimeStage, data: Data) -> None:
    from seqeval.metrics import classification_report

    sentences = data.sentences
    names, gold = sentences.names, sentences.gold
    guessed = gold.with_values(
        np.where(np.arange(len(gold.values)) % 7 == 0, 0, gold.values)
    )  # every seventh label is O
    guesses, golds = guessed.to_lists(), gold.to_lists()
    spelled = [[[names[label] for label in row] for row in rows] for rows in (golds, guesses)]

    def at(tokens: int) -> tuple[Call, int]:
        columns = repeated(
            {"guess": guessed, "gold": gold}, tokens // 10
        )  # fewer tokens, because it builds Python sets
        lists = columns["guess"].to_lists(), columns["gold"].to_lists()
        return lambda: score_entities(lists[0], references=lists[1], names=names), len(columns["gold"].values)

    time_stage(
        "score-entities",
        ours=Method("score_entities", lambda: score_entities(guesses, references=golds, names=names), len(gold.values)),
        peers={
            "library": Method(
                "seqeval's classification_report",
                lambda: classification_report(*spelled, output_dict=True, zero_division=0),
                len(gold.values),
            )
        },
        growth=at,
    )
