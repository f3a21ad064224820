"""Small pipelines on the microworld, whose runs take a tenth of a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import Batch, Feature, Pipeline
from touchstone.sources import MicroworldCheckpoint, MicroworldData, open_source

OPTIONS: dict[str, dict[str, Any]] = {
    "token-classification": {},
    "question-answering": {"max_length": 64, "stride": 8},
    "masked-lm": {"chunk_length": 32, "train_chunks": 24, "probe": "She lives in [MASK]."},
    "translation": {"max_length": 48, "max_new_tokens": 12},
    "summarization": {"max_source_length": 96, "max_target_length": 24, "max_new_tokens": 12},
    "causal-lm": {"context_length": 32, "remainder": "keep", "train_chunks": 24, "validation_chunks": 17},
}
"""Options that differ from the defaults, by task."""
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "masked-lm": {"architecture": "distilbert"},
    "translation": {"architecture": "marian", "tokenizer": "metaspace-bpe"},
    "summarization": {"architecture": "t5", "tokenizer": "metaspace-bpe"},
    "causal-lm": {"architecture": "gpt2", "tokenizer": "byte-bpe"},
}
"""Tasks whose head needs another model than BERT."""


def tiny_pipeline(task: str, *, seed: int = 0, train: int = 24, dropout: float = 0.1) -> Pipeline:
    """Return a pipeline with `train` documents for training and 17 for validation; its model has one layer of 32 units.

    17 is a prime, so that no batch size divides it.
    """
    settings: dict[str, Any] = {"layers": 1, "hidden": 32, "heads": 2, "dropout": dropout}
    checkpoint = MicroworldCheckpoint(**CHECKPOINTS.get(task, {"architecture": "bert"}) | settings)
    source = open_source(MicroworldData(train=train, validation=17), checkpoint)
    kind = PIPELINES[task]
    return kind(source, options=kind.Options(**OPTIONS.get(task, {})), seed=seed)


class RecordedOrder:
    """The order in which a pipeline collates training examples: `seen` holds (epoch, example) of each."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.seen: list[tuple[int, int]] = []
        self._collate = pipeline.collate
        pipeline.collate = self.collate  # type: ignore[method-assign]

    def collate(self, features: Sequence[Feature], *, train: bool) -> Batch:
        if train:
            self.seen += [(feature["epoch"], feature["example"]) for feature in features]
        return self._collate(features, train=train)
