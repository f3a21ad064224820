"""The interface between a task and the engines that train it.

A pipeline defines a task: its data, model head, loss and metrics. An engine (see `touchstone.engines`) trains it. To
add a task, subclass `Pipeline`; the engines `loop` and `trainer` can then train it. (`packed` makes more assumptions
about the model: its head must predict something for each token.) The data flow like this:

    source.examples(split)             the rows of the data set
    -> columns(split)                  the tokenized split: N rows, each as long as it is
    -> FeatureRows(columns)[epoch, i]  one feature: row i of every column, with the keys `example` and `epoch`
    -> collate(features, train=...)    one batch: tensors padded to (B, T), and `size`
    -> loss(model, batch)              in training: the sum of the losses of the batch's items
    -> predict(model, batch)           in evaluation: one small prediction per example
    -> score(predictions)              the metrics of the whole validation split

The data steps (align, chunk, mask, pad ...) are stages, pure functions from `touchstone.stages`. Pipelines call their
batched versions (`align_labels_batch`), which are fast but hard to read. The plain definition of each stage, which the
batched version must agree with, is at the top of the stage's module (`align_labels`).

Here is a complete task, the classification of reviews as bad (0) or good (1)::

    class ReviewPrediction(NamedTuple):
        label: int
        loss: float


    class ReviewClassification(Pipeline):
        task = "review-classification"
        hub_task = "text-classification"
        Options = Options
        example = "A wonderful film."

        @cached_by_split
        def columns(self, split):
            data = self.source.examples(split, columns=("text", "label"))
            tokens = tokenize(self.tokenizer, data["text"][:], pretokenized=False, max_length=64)
            return {"input_ids": tokens["input_ids"], "label": np.asarray(data["label"][:])}

        def collate(self, features, *, train):
            arrays = pad_features(features, names=("input_ids",), tokenizer=self.tokenizer)
            arrays["label"] = np.asarray([feature["label"] for feature in features])
            return to_batch(arrays, items=len(features))  # one term of the loss per review

        def model(self):
            return self.source.model(AutoModelForSequenceClassification, num_labels=2)

        def losses(self, model, batch):  # (B, 2) and (B,)
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
            return logits, cross_entropy(logits, batch["label"], reduction="none")

        def loss(self, model, batch):
            return self.losses(model, batch)[1].sum()

        def predict(self, model, batch):
            logits, losses = self.losses(model, batch)
            return [ReviewPrediction(*row) for row in zip(logits.argmax(-1).tolist(), losses.tolist())]

        def score(self, predictions):
            labels = self.columns("validation")["label"].tolist()
            right = sum(prediction.label == label for prediction, label in zip(predictions, labels, strict=True))
            loss = sum(prediction.loss for prediction in predictions)
            n = len(labels)
            return [
                Score("accuracy", right / n, n, True, "accuracy"),
                Score("loss", loss / n, n, False, "nll|unit:nat", upper=None),
            ]

To train it, pass an instance to `load_engine("loop").train`, as the example in `token_classification.py` does. Specs
can name only the tasks in `touchstone.pipelines.PIPELINES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from touchstone.fields import FrozenModel
from touchstone.sources.source import Source
from touchstone.stages.collation import pad_batch
from touchstone.stages.ragged import Array, Ragged

if TYPE_CHECKING:  # importing it takes seconds, and only code that builds a model needs it
    from transformers import PreTrainedModel

T = TypeVar("T")

Columns = Mapping[str, "Ragged | Array"]
"""A tokenized split of N examples: each column is a `Ragged` of N rows (token ids, labels) or an array (N,)."""
Feature = Mapping[str, Any]
"""Row i of every column, (T_i,) or (), with two keys more: `example` is i, and `epoch` counts the passes over the data.

`epoch` and `example` are what a random draw (masking) may depend on, besides the seed.
"""
Batch = dict[str, Any]
"""The tensors that the model and the loss need, such as `input_ids` (B, T), and `size: BatchSize`."""


class BatchSize(NamedTuple):
    """The size of a batch. It is counted on the host, so that no engine has to wait for the device.

    Attributes:
        examples: rows, B.
        items: terms that the loss sums over (labelled tokens, or answers).
        tokens: real tokens, without padding.
        padded_tokens: real tokens and padding.
    """

    examples: int
    items: int
    tokens: int
    padded_tokens: int


@dataclass(frozen=True)
class Score:
    """The value of one metric in one evaluation.

    Attributes:
        n: the number of entities, tokens or texts that the value is computed over.
        signature: the settings of the metric. Two values are comparable only if their signatures are equal.
        lower, upper: the range of the metric; None where it is unbounded (perplexity, loss).
    """

    name: str
    value: float
    n: int
    higher_is_better: bool
    signature: str
    lower: float = 0.0
    upper: float | None = 1.0


class Options(FrozenModel):
    """The settings of a task that a spec may choose. Each pipeline extends it; unknown keys are refused."""


class Pipeline(ABC):
    """A task on a source: its stages, model head, loss and metrics. It has no training loop and knows no engine.

    The module's docstring shows how the methods work together. Creating a pipeline is cheap; `columns` does the work
    and keeps its result.

    Args:
        source: where the data, the tokenizer and the checkpoint come from.
        options: an instance of the class's `Options`.
        seed: the seed of the trial, for random draws in `collate`.

    Class attributes:
        task: the name of the task in specs.
        hub_task: the name of the task for `transformers.pipeline` and on the hub.
        Options: the type of `options`.
    """

    task: ClassVar[str]
    hub_task: ClassVar[str]
    Options: ClassVar[type[Options]]

    def __init__(self, source: Source, *, options: Any, seed: int) -> None:
        self.source = source
        self.options = options
        self.seed = seed

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The source's tokenizer.

        Raises:
            SourceError: the tokenizer lacks something that the task needs.
        """
        return self.source.tokenizer()

    @property
    @abstractmethod
    def example(self) -> str:
        """A text that a trained model can be tried on. Model cards show it."""

    def usage(self, repo: str) -> list[str]:
        """Return lines of Python that use the trained model from the hub repository `repo`.

        These call `transformers.pipeline(hub_task)`. Override it for a task that transformers has no such pipeline for.
        """
        return [
            "from transformers import pipeline",
            "",
            f"predict = pipeline({self.hub_task!r}, model={repo!r})",
            f"predict({self.example!r})",
        ]

    @abstractmethod
    def columns(self, split: str) -> Columns:
        """Return the model inputs of the split `train` or `validation`: tokenized, then aligned, chunked or windowed.

        A row is what training and evaluation count as one example. For most tasks this is a row of the data set, but
        language models count chunks of running text, and question answering counts windows of a context.
        """

    @abstractmethod
    def collate(self, features: Sequence[Feature], *, train: bool) -> Batch:
        """Make one padded batch of B features, on the host. `pad_features` and `to_batch` do most of it.

        Random draws may depend on the seed and on a feature's `epoch` and `example` only. The batch is then the same in
        every worker process, on every rank and after a resume. With `train` false they must not depend on the seed or
        the epoch either, so that all evaluations use the same inputs.

        Example, for token classification (labels -100 are not predicted):
            features: `{"input_ids": [2, 9, 8, 3], "labels": [-100, 1, 0, -100], "example": 5, "epoch": 0}` and
                `{"input_ids": [2, 7, 3], "labels": [-100, 3, -100], "example": 1, "epoch": 0}`.
            batch:  `input_ids` [[2, 9, 8, 3], [2, 7, 3, 0]], `attention_mask` [[1, 1, 1, 1], [1, 1, 1, 0]],
                `labels` [[-100, 1, 0, -100], [-100, 3, -100, -100]] and
                `size` BatchSize(examples=2, items=3, tokens=7, padded_tokens=8).
        """

    @abstractmethod
    def model(self) -> PreTrainedModel:
        """Return a new model with the task's head. The caller seeds torch's global generator first."""

    @abstractmethod
    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return the *sum* of the losses of the batch's `size.items` items: () float32, in nats.

        It is a sum because the engine divides by the number of items in the whole optimizer step. That step may consist
        of several micro-batches on several ranks, with different numbers of items. A mean of their means would give a
        token more weight if it came in a micro-batch with few others.

        Example: two micro-batches have sums 6.0 over 3 items and 1.0 over 1 item. The loss of the step is
        (6.0 + 1.0) / (3 + 1) = 1.75. The mean of means would be (2.0 + 1.0) / 2 = 1.5.
        """

    @abstractmethod
    def predict(self, model: torch.nn.Module, batch: Batch) -> list[Any]:
        """Return B predictions, one per row of the batch, with only what `score` needs, on the host.

        A prediction is a NamedTuple of numbers, texts and NumPy arrays. Ranks exchange predictions as plain data.
        """

    @abstractmethod
    def score(self, predictions: Sequence[Any]) -> list[Score]:
        """Return the metrics of the validation split, the main one first.

        Args:
            predictions: one per row of `columns("validation")`, in their order.
        """

    def sample_outputs(self, model: torch.nn.Module) -> list[str]:
        """Return a few lines of text that show what the model does. They are recorded before and after training.

        The model stays in its mode (training or evaluation). By default there are no lines.
        """
        return []


class FeatureRows(torch.utils.data.Dataset[Feature]):
    """A split as a torch dataset of N features.

    A key is the pair `(epoch, index)`, so that a feature knows its epoch without any state in a worker process.

    Raises:
        ValueError: columns with different numbers of rows.
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        sizes = {name: len(column) for name, column in columns.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"columns must have the same number of rows, got {sizes}")
        self.size = next(iter(sizes.values()), 0)

    @property
    def lengths(self) -> Array:
        """(N,) tokens of each example, in the longest of its columns."""
        lengths = [column.lengths for column in self.columns.values() if isinstance(column, Ragged)]
        return np.max(lengths, axis=0) if lengths else np.ones(self.size, dtype=np.int64)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: tuple[int, int]) -> Feature:
        epoch, index = key
        feature: dict[str, Any] = {name: column[index] for name, column in self.columns.items()}
        return feature | {"example": int(index), "epoch": int(epoch)}


def cached_by_split(prepare: Callable[[Any, str], T]) -> Callable[[Any, str], T]:
    """Decorate a method of one argument, the name of a split, so that each instance computes each split once."""
    attribute = f"_{prepare.__name__}_by_split"

    @wraps(prepare)
    def cached(self: Any, split: str) -> T:
        results: dict[str, T] = vars(self).setdefault(attribute, {})
        if split not in results:
            results[split] = prepare(self, split)
        return results[split]

    return cached


def pad_features(
    features: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    side: str | None = None,
    pad: Callable[..., dict[str, Array]] = pad_batch,
) -> dict[str, Array]:
    """Pad columns of B features.

    Args:
        features: B mappings that have `input_ids`.
        names: the columns to pad, `input_ids` among them.
        tokenizer: gives the padding token, and the side to pad on unless `side` gives it.
        pad: the stage that pads, `pad_batch` or `pad_seq2seq`.

    Returns:
        The columns and `attention_mask`, (B, T) each. The mask is made here from the lengths. It cannot be made from
        the padded ids, because the last real token may be the padding token, too.
    """
    rows = [
        {name: feature[name] for name in names} | {"attention_mask": np.ones(len(feature["input_ids"]), dtype=np.int64)}
        for feature in features
    ]
    return pad(rows, pad_id=tokenizer.pad_token_id, side=side or tokenizer.padding_side)


def to_batch(arrays: Mapping[str, Array], *, items: int) -> Batch:
    """Turn padded arrays into a batch: tensors, and the `size` that `attention_mask` (B, T) and `items` give."""
    mask = arrays["attention_mask"]
    return {**to_tensors(arrays), "size": BatchSize(len(mask), items, int(mask.sum()), mask.size)}


def to_tensors(arrays: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """Turn arrays into CPU tensors of the same types, without a copy where the array is contiguous."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, compute no gradients, and restore the model's mode on exit."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
