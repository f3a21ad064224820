"""Masked language modeling: predict the hidden tokens of running text (HF course, chapter 7, section 3).

Documents are tokenized, concatenated and cut into chunks, and some tokens of each chunk are hidden. Training hides
different tokens in every epoch. Evaluation always hides the same ones, so that two evaluations differ only in their
models.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import datasets
import numpy as np
import torch
from pydantic import Field, field_validator
from torch.nn.functional import softmax
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from touchstone.pipelines.pipeline import (
    Batch,
    Columns,
    Feature,
    Options,
    Pipeline,
    Score,
    evaluating,
    pad_features,
    to_batch,
)
from touchstone.pipelines.tokenizing import tokenize
from touchstone.pipelines.vocabulary import (
    ChunkPrediction,
    language_model_scores,
    losses_and_hits_at_positions,
    losses_at_positions,
)
from touchstone.sources.source import SourceError
from touchstone.stages.chunking import chunk_batch
from touchstone.stages.masking import mask_tokens_batch
from touchstone.stages.ragged import IGNORED, Array, Ragged

if TYPE_CHECKING:  # importing it takes seconds, and only code that builds a model needs it
    from transformers import PreTrainedModel

TEXT = "text"
BLANK = "[MASK]"
"""The place to fill in the option `probe`, whatever the tokenizer's own mask token is."""
FILLINGS = 5


class MaskedLMOptions(Options):
    """The settings of masked language modeling.

    Attributes:
        chunk_length: tokens of a chunk.
        tail: what to do with the tokens that do not fill a last chunk: `drop` them, or `keep` them as a shorter chunk.
        rate: the share of tokens (of words, with `whole_word`) to hide.
        whole_word: hide whole words.
        replacement: the probabilities that a hidden token is replaced by the mask token, replaced by a random token, or
            left unchanged.
        train_chunks: use this many chunks of the train split, drawn at random, instead of all.
        validation_chunks: use this many chunks of the *train* split for validation, instead of the validation split.
        split_seed: the seed of that draw, and of the tokens hidden in evaluation. It is separate from the trial's seed,
            so that all trials use the same data.
        probe: a sentence with one `[MASK]`, which sample outputs fill in.
    """

    chunk_length: int = Field(default=128, ge=1)
    tail: Literal["drop", "keep"] = "drop"
    rate: float = Field(default=0.15, ge=0, le=1)
    whole_word: bool = False
    replacement: tuple[float, float, float] = (0.8, 0.1, 0.1)
    train_chunks: int | None = Field(default=None, ge=1)
    validation_chunks: int | None = Field(default=None, ge=1)
    split_seed: int = Field(default=42, ge=0)
    probe: str = "This is a great [MASK]."

    @field_validator("probe")
    @classmethod
    def _one_mask(cls, probe: str) -> str:
        if probe.count(BLANK) != 1:
            raise ValueError(f"probe must have exactly one {BLANK}, got {probe!r}")
        return probe


class MaskedLM(Pipeline):
    """Predict hidden tokens. An item of the loss is a hidden token."""

    task = "masked-lm"
    hub_task = "fill-mask"
    Options = MaskedLMOptions
    options: MaskedLMOptions

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = self.source.tokenizer()
        if tokenizer.mask_token_id is None:
            raise SourceError(
                "the tokenizer has no mask token, which masked-lm needs: use a checkpoint of a masked language model"
            )
        return tokenizer

    @property
    def example(self) -> str:
        return self.options.probe.replace(BLANK, str(self.tokenizer.mask_token))

    @cached_property
    def vocabulary(self) -> Array:
        """(V,) the ids that a hidden token may be replaced by at random: all except the special tokens."""
        ids = np.arange(len(self.tokenizer), dtype=np.int64)
        return np.setdiff1d(ids, np.asarray(self.tokenizer.all_special_ids, dtype=np.int64))

    def columns(self, split: str) -> Columns:
        """`input_ids`, `word_ids` and `special_tokens_mask` of N chunks, (N, T_i) each."""
        if split not in self._splits:
            raise SourceError(f"unknown split {split!r}: use one of {', '.join(sorted(self._splits))}")
        return self._splits[split]

    def _chunk(self, split: str) -> dict[str, Ragged]:
        data = self.source.examples(split, columns=(TEXT,))
        texts = data.with_format("arrow")[:].column(TEXT)
        tokens = tokenize(self.tokenizer, texts, pretokenized=False, max_length=None)
        chunks: dict[str, Ragged] = chunk_batch(tokens, length=self.options.chunk_length, tail=self.options.tail)
        if not len(chunks["input_ids"]):
            raise SourceError(
                f"split {split!r} has {len(tokens['input_ids'].values)} tokens, less than one chunk of "
                f"{self.options.chunk_length}: lower chunk_length or use more text"
            )
        return chunks

    @cached_property
    def _splits(self) -> dict[str, Columns]:
        """Both splits: the source's own, or with `validation_chunks` two parts of its train split.

        The parts are drawn exactly as the course draws them, with `train_test_split`.
        """
        train, options = self._chunk("train"), self.options
        n = len(train["input_ids"])
        wanted = (options.train_chunks or 1) + (options.validation_chunks or 0)
        if wanted > n:
            raise SourceError(
                f"the train split has {n} chunks of {options.chunk_length} tokens, but train_chunks and "
                f"validation_chunks need {wanted}: lower them or use more text"
            )
        if options.validation_chunks is not None:
            numbered = datasets.Dataset.from_dict({"chunk": np.arange(n)})
            parts = numbered.train_test_split(
                train_size=options.train_chunks or n - options.validation_chunks,
                test_size=options.validation_chunks,
                seed=options.split_seed,
            )
            return {
                "train": _take(train, np.asarray(parts["train"]["chunk"][:])),
                "validation": _take(train, np.asarray(parts["test"]["chunk"][:])),
            }
        if options.train_chunks is not None:
            chosen = np.random.default_rng(options.split_seed).permutation(n)[: options.train_chunks]
            train = _take(train, chosen)
        return {"train": train, "validation": self._chunk("validation")}

    def collate(self, features: Sequence[Feature], *, train: bool) -> Batch:
        # The random draws of training have the epochs 1, 2 ..., those of evaluation have epoch 0.
        epochs = {int(feature["epoch"]) + 1 for feature in features} if train else {0}
        if len(epochs) != 1:
            raise ValueError(f"all features of a batch must be of one epoch, got epochs {sorted(epochs)}")
        input_ids = Ragged.from_arrays([feature["input_ids"] for feature in features])
        masked, labels = mask_tokens_batch(
            input_ids,
            special=Ragged.from_arrays([feature["special_tokens_mask"] for feature in features]),
            mask_id=self.tokenizer.mask_token_id,
            vocabulary=self.vocabulary,
            rate=self.options.rate,
            replacement=self.options.replacement,
            word_ids=Ragged.from_arrays([f["word_ids"] for f in features]) if self.options.whole_word else None,
            seed=self.seed if train else self.options.split_seed,
            epoch=epochs.pop(),
            examples=np.asarray([feature["example"] for feature in features], dtype=np.int64),
        )
        rows = [{"input_ids": ids, "labels": label} for ids, label in zip(masked, labels, strict=True)]
        arrays = pad_features(rows, names=("input_ids", "labels"), tokenizer=self.tokenizer)
        # Found on the host, because finding them on the device would wait for it.
        hidden = np.flatnonzero(arrays["labels"] != IGNORED)
        return to_batch(arrays | {"hidden": hidden}, items=len(hidden))

    def model(self) -> PreTrainedModel:
        return self.source.model(AutoModelForMaskedLM)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return losses_at_positions(model, batch["hidden"], labels=_hidden_labels(batch), **_inputs(batch)).sum()

    def predict(self, model: torch.nn.Module, batch: Batch) -> list[ChunkPrediction]:
        found = losses_and_hits_at_positions(model, batch["hidden"], labels=_hidden_labels(batch), **_inputs(batch))
        losses, hits = (each.double().cpu().numpy() for each in found)  # (M,)
        rows, width = batch["labels"].shape
        row_of = batch["hidden"].cpu().numpy() // width
        sums = [np.bincount(row_of, weights=weights, minlength=rows) for weights in (losses, hits, None)]
        return [ChunkPrediction(float(loss), int(right), int(items)) for loss, right, items in zip(*sums, strict=True)]

    def score(self, predictions: Sequence[ChunkPrediction]) -> list[Score]:
        options = self.options
        unit = "word" if options.whole_word else "token"
        shares = ",".join(f"{share:g}" for share in options.replacement)
        return language_model_scores(
            predictions,
            chunks=len(self.columns("validation")["input_ids"]),
            accuracy="masked_accuracy",
            settings=f"mask:{unit}|rate:{options.rate:g}|replacement:{shares}|mask_seed:{options.split_seed}"
            f"|chunk:{options.chunk_length}|mean:token",
            no_items=f"no token of the validation chunks is hidden: raise the rate {options.rate} or use more text",
        )

    def sample_outputs(self, model: torch.nn.Module) -> list[str]:
        """Return the sentence of the option `probe` with its most likely fillings and their probabilities."""
        inputs = self.tokenizer(self.example, return_tensors="pt").to(next(model.parameters()).device)
        position = int((inputs["input_ids"][0] == self.tokenizer.mask_token_id).nonzero()[0])
        with evaluating(model):
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        top = softmax(logits[0, position].float(), dim=-1).topk(FILLINGS)
        fillings = [str(self.tokenizer.decode([token])).strip() for token in top.indices.tolist()]
        return [
            f"{probability:.3f}  {self.options.probe.replace(BLANK, filling)}"
            for filling, probability in zip(fillings, top.values.tolist(), strict=True)
        ]


def _inputs(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def _hidden_labels(batch: Batch) -> torch.Tensor:
    """Return (M,) the ids of the batch's M hidden tokens."""
    labels: torch.Tensor = batch["labels"].flatten().index_select(0, batch["hidden"])
    return labels


def _take(chunks: dict[str, Ragged], rows: Array) -> dict[str, Ragged]:
    return {name: column.take(rows) for name, column in chunks.items()}
