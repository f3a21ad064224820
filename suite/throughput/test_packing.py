"""Packing: which sequences go together, and putting them in a row."""

from __future__ import annotations

import numpy as np
from transformers import DataCollatorWithFlattening

from touchstone.records.timing import Goal
from touchstone.stages import align_labels_batch, assign_bins_batch, pack, pack_batch
from touchstone.stages.ragged import Ragged
from touchstone.suite.throughput.conftest import Timed
from touchstone.suite.throughput.data import Data, batches, repeated
from touchstone.suite.throughput.measuring import Run, Way
from touchstone.suite.throughput.test_words import copy

BATCH = 16
CAPACITY = 512


def labelled(data: Data) -> dict[str, Ragged]:
    sentences = data.sentences
    labels = align_labels_batch(sentences.gold, word_ids=sentences.columns["word_ids"], names=sentences.names)
    return {"input_ids": sentences.columns["input_ids"], "labels": labels}


def packed(columns: dict[str, Ragged]) -> object:
    """All rows into rows of `CAPACITY` tokens, and those one after the other."""
    bins = assign_bins_batch(columns["input_ids"].lengths, capacity=CAPACITY)
    ordered = {name: column.take(bins.values) for name, column in columns.items()}
    return pack_batch(ordered, pad_id=0), bins.offsets


def test_packing_into_bins(timed: Timed, data: Data) -> None:
    columns = labelled(data)
    words = data.sentences.words
    rust = data.sentences.tokenizer.backend_tokenizer
    tokens = len(columns["input_ids"].values)

    def bare() -> object:
        rust.no_truncation()
        rust.no_padding()
        return rust.encode_batch(words, is_pretokenized=True)

    def at(wanted: int) -> tuple[Run, int]:
        more = repeated(columns, wanted)
        return lambda: packed(more), len(more["input_ids"].values)

    timed(
        "pack",
        ours=Way(f"assign_bins_batch of {CAPACITY}, take, pack_batch", lambda: packed(columns), tokens),
        peers={"tokenizer": Way("Tokenizer.encode_batch", bare, tokens), "copy": copy(columns)},
        goal=Goal(peer="tokenizer", most=0.1),
        growth=at,
    )


def test_packing_batches(timed: Timed, data: Data) -> None:
    made = batches(labelled(data), size=BATCH, most=200)
    lists = [[{name: row.tolist() for name, row in feature.items()} for feature in batch] for batch in made]
    tokens = sum(len(feature["input_ids"]) for batch in made for feature in batch)
    collator = DataCollatorWithFlattening(return_flash_attn_kwargs=True)  # type: ignore[no-untyped-call]
    flat = [np.concatenate([feature["input_ids"] for feature in batch]) for batch in made]
    timed(
        "pack-batches",
        ours=Way(f"pack, batches of {BATCH}", lambda: [pack(batch, pad_id=0) for batch in made], tokens),
        peers={
            "library": Way("DataCollatorWithFlattening", lambda: [collator(batch) for batch in lists], tokens),
            "copy": Way("two copies of the tokens", lambda: [(a.copy(), a.copy()) for a in flat], tokens),
        },
    )
