"""Masked language modeling: guess the hidden tokens of running text (HF course, chapter 7, section 3).

Documents are tokenized, concatenated and cut into chunks; a part of each chunk's tokens is hidden, anew in every epoch
of training, always alike in evaluation, so that two evaluations differ by their models alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import datasets
import numpy as np
import torch
from pydantic import Field, field_validator
from torch.nn.functional import softmax
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from touchstone.pipelines.pipeline import Batch, BatchSize, Columns, Feature, Options, Pipeline, Score, to_tensors
from touchstone.pipelines.tokenizing import tokenize
from touchstone.pipelines.vocabulary import losses_and_hits_at_positions, losses_at_positions
from touchstone.sources.source import SourceError
from touchstone.stages.chunking import chunk_batch
from touchstone.stages.collation import pad_batch
from touchstone.stages.masking import mask_tokens_batch
from touchstone.stages.ragged import Array, Ragged
from touchstone.stages.scoring import perplexity

if TYPE_CHECKING:  # it takes seconds to import: only those who make a model pay
    from transformers import PreTrainedModel

TEXT = "text"
PROBE_MASK = "[MASK]"


class MaskedLMOptions(Options):
    """What a spec may choose.

    Attributes:
        chunk_length: tokens a chunk.
        tail: what becomes of the tokens that do not fill a last chunk: `drop` or `keep` it, shorter.
        rate: share of tokens (of words, with `whole_word`) that are hidden.
        whole_word: hide words, not tokens.
        replacement: probabilities that a hidden token is replaced by the mask, by a random token, by itself.
        train_chunks: this many chunks of the train split, at random, instead of all.
        validation_chunks: this many chunks of the *train* split for validation, instead of the validation split.
        split_seed: decides which chunks, and what is hidden in evaluation. Not the run's seed: all take the same test.
        probe: a sentence with one `[MASK]`, shown filled in before and after training.
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
        if probe.count(PROBE_MASK) != 1:
            raise ValueError(f"a probe has exactly one {PROBE_MASK}, got {probe!r}")
        return probe


class MaskedPrediction(NamedTuple):
    """What is kept of one chunk: `loss` in nats and `right` guesses, sums over its `items` hidden tokens."""

    loss: float
    right: int
    items: int


class MaskedLM(Pipeline):
    task: ClassVar[str] = "masked-lm"
    hub_task: ClassVar[str] = "fill-mask"
    Options: ClassVar[type[Options]] = MaskedLMOptions
    options: MaskedLMOptions

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = self.source.tokenizer()
        if tokenizer.mask_token_id is None:
            raise SourceError(
                "the tokenizer has no mask token, masked-lm needs one: take a checkpoint that was made for it"
            )
        return tokenizer

    @property
    def example(self) -> str:
        return self.options.probe.replace(PROBE_MASK, str(self.tokenizer.mask_token))

    @cached_property
    def vocabulary(self) -> Array:
        """(V,) the ids that may replace a hidden token at random: all but the special ones."""
        ids = np.arange(len(self.tokenizer), dtype=np.int64)
        return np.setdiff1d(ids, np.asarray(self.tokenizer.all_special_ids, dtype=np.int64))

    def columns(self, split: str) -> Columns:
        """`input_ids`, `word_ids` and `special_tokens_mask` of the chunks, (N, T_i) each."""
        if split not in self._splits:
            raise SourceError(f"split {split!r} is none of {sorted(self._splits)}")
        return self._splits[split]

    def _chunk(self, split: str) -> dict[str, Ragged]:
        data = self.source.examples(split, columns=(TEXT,))
        texts = data.with_format("arrow")[:].column(TEXT)
        tokens = tokenize(self.tokenizer, texts, pretokenized=False, max_length=None)
        chunks: dict[str, Ragged] = chunk_batch(tokens, length=self.options.chunk_length, tail=self.options.tail)
        if not len(chunks["input_ids"]):
            raise SourceError(
                f"split {split!r} has {len(tokens['input_ids'].values)} tokens, less than one chunk of "
                f"{self.options.chunk_length}: shorten chunk_length or take more text"
            )
        return chunks

    @cached_property
    def _splits(self) -> dict[str, Columns]:
        """Both splits: those of the source, or parts of its train split drawn exactly as the course draws them."""
        train, options = self._chunk("train"), self.options
        n = len(train["input_ids"])
        wanted = (options.train_chunks or 1) + (options.validation_chunks or 0)
        if wanted > n:
            raise SourceError(
                f"the train split has {n} chunks of {options.chunk_length} tokens, train_chunks and validation_chunks "
                f"ask for {wanted}: ask for less or take more text"
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
        # Evaluation is epoch 0 of a stream that no run trains on.
        epochs = {int(feature["epoch"]) + 1 for feature in features} if train else {0}
        if len(epochs) != 1:
            raise ValueError(f"one batch holds one epoch, got {sorted(epochs)}")
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
        rows = [
            {"input_ids": ids, "labels": label, "attention_mask": np.ones(len(ids), dtype=np.int64)}
            for ids, label in zip(masked, labels, strict=True)
        ]
        arrays = pad_batch(rows, pad_id=self.tokenizer.pad_token_id, side=self.tokenizer.padding_side)
        mask = arrays["attention_mask"]
        hidden = np.flatnonzero(arrays["labels"] != -100)
        size = BatchSize(len(rows), len(hidden), int(mask.sum()), mask.size)
        # Counted here, so that nobody asks the device where the hidden tokens are.
        return {**to_tensors(arrays | {"hidden": hidden}), "size": size}

    def model(self) -> PreTrainedModel:
        return self.source.model(AutoModelForMaskedLM)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return losses_at_positions(model, batch["hidden"], labels=_hidden_labels(batch), **_inputs(batch)).sum()

    def predict(self, model: torch.nn.Module, batch: Batch) -> list[MaskedPrediction]:
        found = losses_and_hits_at_positions(model, batch["hidden"], labels=_hidden_labels(batch), **_inputs(batch))
        losses, right = (each.double().cpu().numpy() for each in found)  # (M,)
        rows, width = batch["labels"].shape
        owner = batch["hidden"].cpu().numpy() // width
        sums = [
            np.bincount(owner, weights=weights, minlength=rows) for weights in (losses, right, np.ones_like(losses))
        ]
        return [MaskedPrediction(float(loss), int(hits), int(items)) for loss, hits, items in zip(*sums, strict=True)]

    def score(self, predictions: Sequence[MaskedPrediction]) -> list[Score]:
        wanted = len(self.columns("validation")["input_ids"])
        if len(predictions) != wanted:
            raise ValueError(f"{len(predictions)} predictions for {wanted} validation chunks")
        items = np.asarray([prediction.items for prediction in predictions])
        sums = np.asarray([prediction.loss for prediction in predictions])
        n = int(items.sum())
        if n == 0:
            raise ValueError(
                f"no token of the validation chunks is hidden: rate {self.options.rate} is too small for them"
            )
        right = sum(prediction.right for prediction in predictions)
        unit = "word" if self.options.whole_word else "token"
        shares = ",".join(f"{share:g}" for share in self.options.replacement)
        mask = (
            f"mask:{unit}|rate:{self.options.rate:g}|replacement:{shares}|mask_seed:{self.options.split_seed}"
            f"|chunk:{self.options.chunk_length}|mean:token"
        )
        return [
            Score(
                "perplexity",
                perplexity((sums / np.maximum(items, 1)).tolist(), tokens=items.tolist()),
                n,
                False,
                f"perplexity|{mask}",
                lower=1.0,
                upper=None,
            ),
            Score("loss", float(sums.sum()) / n, n, False, f"nll|unit:nat|{mask}", upper=None),
            Score("masked_accuracy", right / n, n, True, f"accuracy|{mask}"),
        ]

    def sample_outputs(self, model: torch.nn.Module) -> list[str]:
        """The five likeliest fillings of the probe, with their probabilities."""
        inputs = self.tokenizer(self.example, return_tensors="pt").to(next(model.parameters()).device)
        position = int((inputs["input_ids"][0] == self.tokenizer.mask_token_id).nonzero()[0])
        training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        finally:
            model.train(training)
        top = softmax(logits[0, position].float(), dim=-1).topk(5)
        fillings = [str(self.tokenizer.decode([token])).strip() for token in top.indices.tolist()]
        return [
            f"{probability:.3f}  {self.options.probe.replace(PROBE_MASK, filling)}"
            for filling, probability in zip(fillings, top.values.tolist(), strict=True)
        ]


def _inputs(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def _hidden_labels(batch: Batch) -> torch.Tensor:
    """(M,) what the batch's M hidden tokens are."""
    labels: torch.Tensor = batch["labels"].flatten().index_select(0, batch["hidden"])
    return labels


def _take(chunks: dict[str, Ragged], rows: Array) -> dict[str, Ragged]:
    return {name: column.take(rows) for name, column in chunks.items()}
