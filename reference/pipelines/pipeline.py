"""The contract between a task and the engines that train it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerBase

from touchstone.sources.source import Source
from touchstone.stages.ragged import Array, Ragged

if TYPE_CHECKING:  # it takes seconds to import: only those who make a model pay
    from transformers import PreTrainedModel

Columns = Mapping[str, "Ragged | Array"]
"""A tokenized split: each column has one row an example."""
Feature = Mapping[str, Any]
"""One row of `Columns`, with `example` (its index) and `epoch` (what a random draw may depend on)."""
Batch = dict[str, Any]
"""Tensors for the model, `labels` and the like, and `size: BatchSize`."""


class BatchSize(NamedTuple):
    """What a batch holds, counted before it leaves the host, so that nobody waits for the device to know.

    Attributes:
        examples: rows.
        items: terms that the loss sums over (labelled tokens; answers).
        tokens: real tokens, padding left out.
        padded_tokens: real tokens and padding.
    """

    examples: int
    items: int
    tokens: int
    padded_tokens: int


@dataclass(frozen=True)
class Score:
    """One metric of one evaluation, with all that is needed to compare it with another.

    Attributes:
        n: what the value is computed over: entities, tokens, texts.
        signature: names everything that makes two values of this metric comparable.
        lower, upper: what the metric can be at all; None where it has no end (perplexity, loss).
    """

    name: str
    value: float
    n: int
    higher_is_better: bool
    signature: str
    lower: float = 0.0
    upper: float | None = 1.0


class Options(BaseModel):
    """What a task lets a spec choose. Each pipeline extends it; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Pipeline(ABC):
    """A task on a source: which stages, which head, which metric. It holds no loop and knows no engine.

    Class attributes:
        task: the field's name of the task.
        hub_task: the hub's name of it.
        Options: the pydantic type of `options`.

    Instances are cheap; `columns` does the work and keeps its result.
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
        """The source's.

        Raises:
            SourceError: it is none that the task can do with.
        """
        return self.source.tokenizer()

    @property
    @abstractmethod
    def example(self) -> str:
        """An input, shown to those who want to use a trained model."""

    def usage(self, repo: str) -> list[str]:
        """Lines of Python that use the model trained, once it is at `repo`: those of `transformers.pipeline(hub_task)`,
        which not every task has."""
        return [
            "from transformers import pipeline",
            "",
            f"predict = pipeline({self.hub_task!r}, model={repo!r})",
            f"predict({self.example!r})",
        ]

    @abstractmethod
    def columns(self, split: str) -> Columns:
        """The tokenized, aligned or chunked `train` or `validation` split."""

    @abstractmethod
    def collate(self, features: Sequence[Feature], *, train: bool) -> Batch:
        """Features to one padded batch on the host. Draws (masking) depend on seed, epoch and example alone."""

    @abstractmethod
    def model(self) -> PreTrainedModel:
        """A fresh model. The caller seeds torch's generator first."""

    @abstractmethod
    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """() float32: the *sum* of the losses of the batch's `size.items` terms, in nats.

        A sum, so that an engine can divide by the items of the whole optimizer step, however it is cut up.
        """

    @abstractmethod
    def predict(self, model: torch.nn.Module, batch: Batch) -> list[Any]:
        """One prediction an example, small and on the host: what `score` needs and no more.

        A NamedTuple of numbers, texts and NumPy arrays, so that processes can tell each other theirs as plain data.
        """

    @abstractmethod
    def score(self, predictions: Sequence[Any]) -> list[Score]:
        """The metrics of all validation examples, the task's main one first; `predictions[i]` is of example i."""

    def sample_outputs(self, model: torch.nn.Module) -> list[str]:
        """Return a few lines that show a person what the model produces, before and after training. Default: none."""
        return []


class FeatureRows(torch.utils.data.Dataset[Feature]):
    """A split as torch sees it. A key is `(epoch, index)`: a feature knows the epoch without any state in a worker."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        sizes = {name: len(column) for name, column in columns.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"columns differ in their number of rows: {sizes}")
        self.size = next(iter(sizes.values()), 0)

    @property
    def lengths(self) -> Array:
        """(N,) tokens of each example: the longest of its columns."""
        lengths = [column.lengths for column in self.columns.values() if isinstance(column, Ragged)]
        return np.max(lengths, axis=0) if lengths else np.ones(self.size, dtype=np.int64)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: tuple[int, int]) -> Feature:
        epoch, index = key
        feature: dict[str, Any] = {name: column[index] for name, column in self.columns.items()}
        return feature | {"example": int(index), "epoch": int(epoch)}


def to_tensors(arrays: Mapping[str, Array]) -> dict[str, torch.Tensor]:
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
