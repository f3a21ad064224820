"""Throughput of packing: assigning sequences to bins, and concatenating them."""

from __future__ import annotations

import numpy as np
from transformers import DataCollatorWithFlattening

from touchstone.records.timing import Goal
from touchstone.stages import align_labels_batch, assign_bins_batch, pack, pack_batch
from touchstone.stages.ragged import Ragged
from touchstone.suite.throughput.conftest import TimeStage
from touchstone.suite.throughput.data import Data, batches, repeated
from touchstone.suite.throughput.measuring import Call, Method
from touchstone.suite.throughput.test_words import copy

BATCH = 16
CAPACITY = 512


def labelled(data: Data) -> dict[str, Ragged]:
    sentences = data.sentences
    labels = align_labels_batch(sentences.gold, word_ids=sentences.columns["word_ids"], names=sentences.names)
    return {"input_ids": sentences.columns["input_ids"], "labels": labels}


def packed(columns: dict[str, Ragged]) -> object:
    """Assign all rows to bins of `CAPACITY` tokens, and concatenate them in this order."""
    bins = assign_bins_batch(columns["input_ids"].lengths, capacity=CAPACITY)
    ordered = {name: column.take(bins.values) for name, column in columns.items()}
    return pack_batch(ordered, pad_id=0), bins.offsets


def test_pack(time_stage: TimeStage, data: Data) -> None:
    columns = labelled(data)
    words = data.sentences.words
    rust = data.sentences.tokenizer.backend_tokenizer
    tokens = len(columns["input_ids"].values)

    def bare() -> object:
        rust.no_truncation()
        rust.no_padding()
        return rust.encode_batch(words, is_pretokenized=True)

    def at(wanted: int) -> tuple[Call, int]:
        more = repeated(columns, wanted)
        return lambda: packed(more), len(more["input_ids"].values)

    time_stage(
        "pack",
        ours=Method(f"assign_bins_batch of {CAPACITY}, take, pack_batch", lambda: packed(columns), tokens),
        peers={"tokenizer": Method("Tokenizer.encode_batch", bare, tokens), "copy": copy(columns)},
        goal=Goal(peer="tokenizer", most=0.1),
        growth=at,
    )


def test_pack_batches(time_stage: TimeStage, data: Data) -> None:
    made = batches(labelled(data), size=BATCH, most=200)
    lists = [[{name: row.tolist() for name, row in feature.items()} for feature in batch] for batch in made]
    tokens = sum(len(feature["input_ids"]) for batch in made for feature in batch)
    collator = DataCollatorWithFlattening(return_flash_attn_kwargs=True)  # type: ignore[no-untyped-call]
    flat = [np.concatenate([feature["input_ids"] for feature in batch]) for batch in made]
    time_stage(
        "pack-batches",
        ours=Method(f"pack, batches of {BATCH}", lambda: [pack(batch, pad_id=0) for batch in made], tokens),
        peers={
            "library": Method("DataCollatorWithFlattening", lambda: [collator(batch) for batch in lists], tokens),
            "copy": Method("two copies of the tokens", lambda: [(a.copy(), a.copy()) for a in flat], tokens),
        },
    )
