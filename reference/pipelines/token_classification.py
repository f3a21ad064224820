"""Token classification: a label for every word, as in named entity recognition (HF course, chapter 7, section 2).

Words are split into subwords, word labels aligned to tokens, and after training the predictions brought back to words
and scored as entities. The score counts *all* gold entities: those that truncation cut off are misses, not absences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import datasets
import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import cross_entropy
from transformers import AutoModelForTokenClassification

from touchstone.pipelines.pipeline import Batch, BatchSize, Columns, Feature, Options, Pipeline, Score, to_tensors
from touchstone.pipelines.tokenizing import tokenize
from touchstone.sources.source import Source, SourceError
from touchstone.stages.alignment import align_labels_batch, merge_labels_batch
from touchstone.stages.collation import pad_batch
from touchstone.stages.ragged import IGNORED, Array, Ragged
from touchstone.stages.scoring import score_entities

if TYPE_CHECKING:  # it takes seconds to import: only those who make a model pay
    from transformers import PreTrainedModel

WORDS, TAGS = "words", "tags"
UNDECLARED = 10**6
"""A tokenizer that knows no limit says 10^30 (transformers' VERY_LARGE_INTEGER); no model takes a million tokens."""


class TokenClassificationOptions(Options):
    """What a spec may choose.

    Attributes:
        strategy: label `all` subwords of a word, or its `first` only.
        scheme: how the label names spell entities.
        max_length: tokens of an example, special tokens included; the rest is cut off, and its entities are missed.
            None: as many as the tokenizer declares that its model takes.
    """

    strategy: Literal["all", "first"] = "all"
    scheme: Literal["IOB2", "IOBES", "BILOU"] = "IOB2"
    max_length: int | None = Field(default=None, ge=3)


class TokenPrediction(NamedTuple):
    """What is kept of one example. `labels: (T,)` the likeliest label of each token; `loss` a sum over `items`."""

    labels: Array
    loss: float
    items: int


@dataclass(frozen=True)
class _Split:
    columns: dict[str, Ragged]
    word_ids: Ragged
    """(N, T_i) the word of each token, -1 at special tokens."""
    gold: Ragged
    """(N, W_i) the label of each word, truncated or not."""


class TokenClassification(Pipeline):
    task: ClassVar[str] = "token-classification"
    hub_task: ClassVar[str] = "token-classification"
    Options: ClassVar[type[Options]] = TokenClassificationOptions
    options: TokenClassificationOptions

    def __init__(self, source: Source, *, options: TokenClassificationOptions, seed: int) -> None:
        super().__init__(source, options=options, seed=seed)
        self._names: list[str] | None = None
        self._splits: dict[str, _Split] = {}

    @property
    def example(self) -> str:
        return "My name is Sylvain and I work at Hugging Face in Brooklyn."

    @property
    def names(self) -> list[str]:
        """(L,) the name of each label id, as the training data declares them."""
        if self._names is None:
            self._split("train")
        assert self._names is not None
        return self._names

    @property
    def max_length(self) -> int:
        """Tokens of an example.

        Raises:
            SourceError: neither the options nor the tokenizer say how many.
        """
        declared = self.options.max_length or self.tokenizer.model_max_length
        if declared > UNDECLARED:
            raise SourceError(
                "the tokenizer does not declare how many tokens its model takes: set the option max_length"
            )
        return declared

    def columns(self, split: str) -> Columns:
        """`input_ids` and `labels`, (N, T_i) each."""
        return self._split(split).columns

    def _split(self, split: str) -> _Split:
        if split not in self._splits:
            self._splits[split] = self._prepare(split)
        return self._splits[split]

    def _prepare(self, split: str) -> _Split:
        data = self.source.examples(split, columns=(WORDS, TAGS))
        names = _label_names(data, split=split)
        if self._names is not None and names != self._names:
            raise SourceError(
                f"column {TAGS!r} of split {split!r} has the labels {names}, another split has {self._names}: "
                "declare the same labels in the same order in both"
            )
        self._names = names
        table = data.with_format("arrow")[:]
        gold = Ragged.from_arrow(table.column(TAGS))
        tokens = tokenize(self.tokenizer, table.column(WORDS), pretokenized=True, max_length=self.max_length)
        word_ids = tokens["word_ids"]
        try:
            labels = align_labels_batch(
                gold, word_ids=word_ids, names=names, strategy=self.options.strategy, scheme=self.options.scheme
            )
        except ValueError as error:  # data and tokens fit each other: it is the names that do not fit the scheme
            raise SourceError(
                f"the labels of split {split!r}, {', '.join(names)}, do not fit the scheme {self.options.scheme} with "
                f"strategy {self.options.strategy}: {error}"
            ) from error
        return _Split({"input_ids": tokens["input_ids"], "labels": labels}, word_ids, gold)

    def collate(self, features: Sequence[Feature], *, train: bool) -> Batch:
        rows = [{name: feature[name] for name in ("input_ids", "labels")} for feature in features]
        # The mask is given, not left to be made: an example may well end in the token that pads.
        rows = [row | {"attention_mask": np.ones(len(row["input_ids"]), dtype=np.int64)} for row in rows]
        arrays = pad_batch(rows, pad_id=self.tokenizer.pad_token_id, side=self.tokenizer.padding_side)
        mask = arrays["attention_mask"]
        size = BatchSize(len(rows), int((arrays["labels"] != -100).sum()), int(mask.sum()), mask.size)
        return {**to_tensors(arrays), "size": size}

    def model(self) -> PreTrainedModel:
        names = self.names
        return self.source.model(
            AutoModelForTokenClassification,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
        )

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        logits = _logits(model, batch)
        return cross_entropy(logits.flatten(0, 1).float(), batch["labels"].flatten(), reduction="sum")

    def predict(self, model: torch.nn.Module, batch: Batch) -> list[TokenPrediction]:
        logits = _logits(model, batch).float()  # (B, T, L)
        # Flat, for the loss of (B, L, T) has no deterministic kernel on CUDA.
        losses = cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="none")  # (B * T,)
        loss = losses.view_as(batch["labels"]).sum(1).cpu()  # (B,)
        items = (batch["labels"] != -100).sum(1).cpu()
        labels = logits.argmax(-1).cpu().numpy()
        mask = batch["attention_mask"].cpu().numpy().astype(bool)
        return [
            TokenPrediction(row[real], float(nll), int(count))
            for row, real, nll, count in zip(labels, mask, loss, items, strict=True)
        ]

    def score(self, predictions: Sequence[TokenPrediction]) -> list[Score]:
        split, names, scheme = self._split("validation"), self.names, self.options.scheme
        predicted = Ragged.from_arrays([prediction.labels for prediction in predictions])
        if not np.array_equal(predicted.lengths, split.word_ids.lengths):
            raise ValueError(
                f"{len(predictions)} predictions of {predicted.lengths.sum()} tokens in all do not fit the "
                f"{len(split.word_ids)} validation examples of {split.word_ids.lengths.sum()}"
            )
        words = merge_labels_batch(
            predicted, word_ids=split.word_ids, n_words=split.gold.lengths, names=names, scheme=scheme
        )
        strict = score_entities(
            words.to_lists(), references=split.gold.to_lists(), names=names, scheme=scheme, mode="strict"
        )
        lenient = score_entities(
            predicted.to_lists(),
            references=split.columns["labels"].to_lists(),
            names=names,
            scheme=scheme,
            mode="lenient",
        )
        items = sum(prediction.items for prediction in predictions)
        loss = sum(prediction.loss for prediction in predictions) / max(items, 1)
        word = f"{strict['signature']}|level:word|labels:{self.options.strategy}"
        token = f"{lenient['signature']}|level:token|labels:{self.options.strategy}"
        entities = strict["number"]
        labelled = int((split.columns["labels"].values != IGNORED).sum())
        return [
            Score("f1", strict["f1"], entities, True, word),
            Score("precision", strict["precision"], entities, True, word),
            Score("recall", strict["recall"], entities, True, word),
            Score("accuracy", strict["accuracy"], len(split.gold.values), True, word),
            Score("token_f1", lenient["f1"], lenient["number"], True, token),
            Score("token_accuracy", lenient["accuracy"], labelled, True, token),
            Score("loss", loss, items, False, f"nll|unit:nat|mean:token|labels:{self.options.strategy}", upper=None),
        ]


def _logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits


def _label_names(data: datasets.Dataset, *, split: str) -> list[str]:
    feature: Any = data.features[TAGS]
    label = getattr(feature, "feature", None)
    if not isinstance(label, datasets.ClassLabel):
        raise SourceError(
            f"column {TAGS!r} of split {split!r} is {feature}: a list of ClassLabel is needed, "
            "whose names say what each id means"
        )
    return list(label.names)
