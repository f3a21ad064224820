"""Token classification: a label for every word, as in named entity recognition (HF course, chapter 7, section 2).

The tokenizer splits words into subwords, and each word's label is aligned to its tokens (`align_labels`). After
training, predicted token labels are merged back to words (`merge_labels`) and scored as entities. The score counts
*all* gold entities: an entity that truncation cut off is a miss.

This is how to train a token classifier on the plain loop. The interface between the two is in `pipeline.py`, the loop
in `touchstone/engines/loop.py`.

>>> from touchstone.engines import load_engine
>>> from touchstone.engines.training import Execution, Recipe
>>> from touchstone.sources import MicroworldCheckpoint, MicroworldData, open_source
>>> model = MicroworldCheckpoint(architecture="bert", layers=1, hidden=32, heads=2)
>>> source = open_source(MicroworldData(train=24, validation=10), model)
>>> pipeline = TokenClassification(source, options=TokenClassificationOptions(strategy="first"), seed=1)
>>> recipe = Recipe(epochs=2, batch_size=8, learning_rate=1e-3)
>>> run = load_engine("loop").train(pipeline, recipe=recipe, execution=Execution(seed=1))
>>> len(run.trajectory)  # optimizer steps
6
>>> [evaluation.epoch for evaluation in run.evaluations]  # before training and after each epoch
[0.0, 1.0, 2.0]
>>> run.evaluations[-1].scores[0].name
'f1'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import datasets
import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import cross_entropy
from transformers import AutoModelForTokenClassification

from touchstone.pipelines.pipeline import (
    Batch,
    Columns,
    Feature,
    Options,
    Pipeline,
    Score,
    cached_by_split,
    pad_features,
    to_batch,
)
from touchstone.pipelines.tokenizing import tokenize
from touchstone.sources.source import Source, SourceError
from touchstone.stages.alignment import align_labels_batch, merge_labels_batch
from touchstone.stages.ragged import IGNORED, Array, Ragged
from touchstone.stages.scoring import score_entities

if TYPE_CHECKING:  # importing it takes seconds, and only code that builds a model needs it
    from transformers import PreTrainedModel

WORDS, TAGS = "words", "tags"
UNLIMITED = 10**6
"""A `model_max_length` above this is not a limit: transformers uses 10^30 (VERY_LARGE_INTEGER) for no limit."""


class TokenClassificationOptions(Options):
    """The settings of token classification.

    Attributes:
        strategy: label `all` subwords of a word, or only its `first`.
        scheme: the tagging scheme of the label names.
        max_length: the most tokens of an example, with special tokens. The rest is cut off, and its entities are
            missed. None: the limit that the tokenizer declares for its model.
    """

    strategy: Literal["all", "first"] = "all"
    scheme: Literal["IOB2", "IOBES", "BILOU"] = "IOB2"
    max_length: int | None = Field(default=None, ge=3)


class TokenPrediction(NamedTuple):
    """The prediction for one example of T tokens.

    Attributes:
        labels: (T,) the most likely label of each token.
        loss: in nats, summed over the example's `items` labelled tokens.
    """

    labels: Array
    loss: float
    items: int


@dataclass(frozen=True)
class _Split:
    """N examples.

    Attributes:
        columns: `input_ids` and `labels`, (N, T_i) each.
        word_ids: (N, T_i) the word of each token, -1 at special tokens.
        gold: (N, W_i) the label of each word, including words that were cut off.
    """

    columns: dict[str, Ragged]
    word_ids: Ragged
    gold: Ragged


class TokenClassification(Pipeline):
    """Predict a label for every token. An item of the loss is a labelled token."""

    task = hub_task = "token-classification"
    Options = TokenClassificationOptions
    options: TokenClassificationOptions

    def __init__(self, source: Source, *, options: TokenClassificationOptions, seed: int) -> None:
        super().__init__(source, options=options, seed=seed)
        self._names: list[str] | None = None

    @property
    def example(self) -> str:
        return "My name is Sylvain and I work at Hugging Face in Brooklyn."

    @property
    def names(self) -> list[str]:
        """(L,) the name of each label id, as the data set declares them."""
        if self._names is None:
            self._split("train")
        assert self._names is not None
        return self._names

    @property
    def max_length(self) -> int:
        """The most tokens of an example.

        Raises:
            SourceError: neither the options nor the tokenizer give a limit.
        """
        limit = self.options.max_length or self.tokenizer.model_max_length
        if limit > UNLIMITED:
            raise SourceError(
                "the tokenizer does not declare how many tokens its model takes: set the option max_length"
            )
        return limit

    def columns(self, split: str) -> Columns:
        """`input_ids` and `labels`, (N, T_i) each."""
        return self._split(split).columns

    @cached_by_split
    def _split(self, split: str) -> _Split:
        data = self.source.examples(split, columns=(WORDS, TAGS))
        names = _label_names(data, split=split)
        if self._names is not None and names != self._names:
            raise SourceError(
                f"column {TAGS!r} of split {split!r} has the labels {names}, but another split has {self._names}: "
                "declare the same labels in the same order in both splits"
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
        except ValueError as error:  # words and tokens always match here, so the names must be wrong
            raise SourceError(
                f"the labels of split {split!r}, {', '.join(names)}, do not fit the scheme {self.options.scheme} with "
                f"strategy {self.options.strategy}: {error}"
            ) from error
        return _Split({"input_ids": tokens["input_ids"], "labels": labels}, word_ids, gold)

    def collate(self, features: Sequence[Feature], *, train: bool) -> Batch:
        arrays = pad_features(features, names=("input_ids", "labels"), tokenizer=self.tokenizer)
        return to_batch(arrays, items=int((arrays["labels"] != IGNORED).sum()))

    def model(self) -> PreTrainedModel:
        names = self.names
        return self.source.model(
            AutoModelForTokenClassification,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
        )

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        logits = _logits(model, batch)  # (B, T, L)
        return cross_entropy(logits.flatten(0, 1).float(), batch["labels"].flatten(), reduction="sum")

    def predict(self, model: torch.nn.Module, batch: Batch) -> list[TokenPrediction]:
        logits = _logits(model, batch).float()  # (B, T, L)
        # Flattened, because the loss over (B, L, T) has no deterministic kernel on CUDA.
        losses = cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="none")  # (B * T,)
        loss = losses.view_as(batch["labels"]).sum(1).cpu()  # (B,)
        items = (batch["labels"] != IGNORED).sum(1).cpu()
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
                f"{len(predictions)} predictions with {predicted.lengths.sum()} tokens in total do not match the "
                f"{len(split.word_ids)} validation examples with {split.word_ids.lengths.sum()} tokens: pass one "
                "prediction per example, in order"
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
    """Return (B, T, L) logits."""
    logits: torch.Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits


def _label_names(data: datasets.Dataset, *, split: str) -> list[str]:
    """Return the label names of the column `tags`."""
    feature: Any = data.features[TAGS]
    label = getattr(feature, "feature", None)
    if not isinstance(label, datasets.ClassLabel):
        raise SourceError(
            f"column {TAGS!r} of split {split!r} has the type {feature}: it must be a list of ClassLabel, "
            "which names each label id"
        )
    return list(label.names)
