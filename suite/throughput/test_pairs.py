"""Throughput of translation and summarization: padding pairs, shifting, cleaning, and scoring texts."""

from __future__ import annotations

import numpy as np
import torch
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from transformers import DataCollatorForSeq2Seq
from transformers.models.marian.modeling_marian import shift_tokens_right

from touchstone.stages import bleu, clean_sequences, pad_seq2seq, rouge, shift_right
from touchstone.suite.throughput import course
from touchstone.suite.throughput.conftest import TimeStage
from touchstone.suite.throughput.data import Data, batches
from touchstone.suite.throughput.measuring import Method

BATCH = 32
ROUGE_TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def test_pad_pairs(time_stage: TimeStage, data: Data) -> None:
    pairs = data.pairs
    made = batches(pairs.columns, size=BATCH, most=60)
    ones = [
        [{**feature, "attention_mask": np.ones(len(feature["input_ids"]), np.int64)} for feature in batch]
        for batch in made
    ]
    lists = [[{name: row.tolist() for name, row in feature.items()} for feature in batch] for batch in ones]
    tokens = sum(len(row) for batch in made for feature in batch for row in feature.values())
    pad_id = int(pairs.tokenizer.pad_token_id)
    collator = DataCollatorForSeq2Seq(pairs.tokenizer)
    time_stage(
        "pad-pairs",
        ours=Method(
            f"pad_seq2seq, batches of {BATCH}", lambda: [pad_seq2seq(batch, pad_id=pad_id) for batch in ones], tokens
        ),
        peers={
            "library": Method(
                "DataCollatorForSeq2Seq",
                lambda: [collator([dict(feature) for feature in batch]) for batch in lists],
                tokens,
            )
        },
    )


def labels_of(data: Data) -> list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """Return the padded labels of batches."""
    rows = batches({"labels": data.pairs.columns["labels"]}, size=BATCH, most=100)
    pad_id = int(data.pairs.tokenizer.pad_token_id)
    return [pad_seq2seq([{"input_ids": [1], **row} for row in batch], pad_id=pad_id)["labels"] for batch in rows]


def test_shift(time_stage: TimeStage, data: Data) -> None:
    labels = labels_of(data)
    pad_id = int(data.pairs.tokenizer.pad_token_id)
    tensors = [torch.from_numpy(batch) for batch in labels]
    tokens = sum(batch.size for batch in labels)
    time_stage(
        "shift",
        ours=Method(
            f"shift_right, batches of {BATCH}",
            lambda: [shift_right(batch, pad_id=pad_id, start_id=pad_id) for batch in labels],
            tokens,
        ),
        peers={
            "library": Method(
                "Marian's shift_tokens_right",
                lambda: [shift_tokens_right(batch, pad_id, pad_id) for batch in tensors],
                tokens,
            ),
            "copy": Method("a copy of the labels", lambda: [batch.copy() for batch in labels], tokens),
        },
    )


def test_clean(time_stage: TimeStage, data: Data) -> None:
    """Clean padded rows. The course only replaces -100 by padding and leaves the rest to the tokenizer."""
    labels = labels_of(data)
    tokenizer = data.pairs.tokenizer
    pad_id, eos_id = int(tokenizer.pad_token_id), int(tokenizer.eos_token_id)
    tokens = sum(batch.size for batch in labels)
    time_stage(
        "clean",
        ours=Method(
            "clean_sequences",
            lambda: [clean_sequences(batch, pad_id=pad_id, eos_id=eos_id) for batch in labels],
            tokens,
        ),
        peers={
            "course": Method("np.where", lambda: [course.cleaned(batch, pad_id=pad_id) for batch in labels], tokens),
        },
    )


def test_bleu(time_stage: TimeStage, data: Data) -> None:
    targets = data.pairs.targets[:1000]
    guesses = [" ".join(text.split()[1:]) for text in targets]
    tokens = int(data.pairs.columns["labels"].offsets[len(targets)])
    time_stage(
        "bleu",
        ours=Method("bleu", lambda: bleu(guesses, references=targets), tokens),
        peers={"library": Method("sacrebleu's BLEU", lambda: BLEU().corpus_score(guesses, [targets]), tokens)},
    )


def test_rouge(time_stage: TimeStage, data: Data) -> None:
    """Tokens are the whitespace-separated words of the summaries."""
    _, summaries = data.reports
    guesses = [" ".join(text.split()[1:]) for text in summaries]
    scorer = RougeScorer(ROUGE_TYPES, use_stemmer=True)
    tokens = sum(len(text.split()) for text in summaries)
    time_stage(
        "rouge",
        ours=Method("rouge", lambda: rouge(guesses, references=summaries), tokens),
        peers={
            "library": Method(
                "rouge-score's RougeScorer",
                lambda: [scorer.score(target, guess) for target, guess in zip(summaries, guesses, strict=True)],
                tokens,
            )
        },
    )
