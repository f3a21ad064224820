"""In which order examples are trained on and evaluated: the same in every engine, for any number of workers.

The order of an epoch depends on (seed, epoch) alone, so a resumed run needs no generator's state to go on with it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from touchstone.engines.ranks import Ranks
from touchstone.pipelines.pipeline import Batch, BatchSize, Feature, FeatureRows, Pipeline
from touchstone.stages.ragged import Array

Key = tuple[int, int]
"""(epoch, index of the example)."""


class EpochOrder(Sampler[Key]):
    """A random order of `size` examples, another one for each epoch.

    The permutation sorts raw 64-bit draws: NumPy promises the stream of a bit generator for good, that of
    `Generator.permutation` only within a version (NEP 19).
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def permutation(self, epoch: int) -> Array:
        """(size,) the examples in the order of this epoch."""
        draws = np.random.PCG64(np.random.SeedSequence([self.seed, epoch])).random_raw(self.size)
        return np.argsort(draws, kind="stable").astype(np.int64)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Key]:
        epoch = self.epoch
        return ((epoch, index) for index in self.permutation(epoch).tolist())


class EvaluationOrder(Sampler[Key]):
    """Every example once, the longest first: batches hold little padding, and a lack of memory shows at once.

    `rank` of `world` processes takes every `world`-th of them.
    """

    def __init__(self, lengths: Array, *, rank: int = 0, world: int = 1) -> None:
        self.indices: list[int] = np.argsort(-lengths, kind="stable")[rank::world].tolist()

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Key]:
        return ((0, index) for index in self.indices)


class Shares(Sampler[list[Key]]):
    """Of each micro-batch the examples that fall to one rank: none, where it has fewer than there are ranks."""

    def __init__(self, order: EpochOrder, *, batch_size: int, ranks: Ranks) -> None:
        self.order = order
        self.batch_size = batch_size
        self.ranks = ranks

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        keys = iter(self.order)
        while micro_batch := list(islice(keys, self.batch_size)):
            yield micro_batch[self.ranks.rank :: self.ranks.world]


class EpochLoader(DataLoader[Any]):
    """Batches of the epoch that `set_epoch` names (transformers and Accelerate call it)."""

    batch_sampler: Shares

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.order.epoch = epoch


def training_batches(
    pipeline: Pipeline, *, batch_size: int, seed: int, ranks: Ranks, workers: int = 0, pinned: bool = False
) -> EpochLoader:
    """The train split, one epoch at a time.

    Args:
        batch_size: examples a micro-batch, which the ranks divide among themselves. All ranks get as many batches; one
            without examples gets a stand-in of size 0, to take part in what ranks do together.
    """
    rows = FeatureRows(pipeline.columns("train"))
    return EpochLoader(
        rows,
        batch_sampler=Shares(EpochOrder(len(rows), seed=seed), batch_size=batch_size, ranks=ranks),
        collate_fn=partial(_collate, pipeline=pipeline, rows=rows),
        **_loading(workers, pinned),
    )


def _collate(features: Sequence[Feature], *, pipeline: Pipeline, rows: FeatureRows) -> Batch:
    if features:
        return pipeline.collate(features, train=True)
    batch = pipeline.collate([rows[0, int(rows.lengths.argmin())]], train=True)
    return batch | {"size": BatchSize(0, 0, 0, batch["size"].padded_tokens)}


def evaluation_batches(
    pipeline: Pipeline, *, batch_size: int, workers: int = 0, pinned: bool = False, rank: int = 0, world: int = 1
) -> tuple[DataLoader[Any], list[int]]:
    """The share of the validation split that falls to `rank` of `world`, and the example of each row to come."""
    rows = FeatureRows(pipeline.columns("validation"))
    order = EvaluationOrder(rows.lengths, rank=rank, world=world)
    loader: DataLoader[Any] = DataLoader(
        rows,
        sampler=order,
        collate_fn=partial(pipeline.collate, train=False),
        batch_size=batch_size,
        **_loading(workers, pinned),
    )
    return loader, order.indices


def _loading(workers: int, pinned: bool) -> dict[str, Any]:
    if workers:
        # The tokenizer's threads do not survive a fork; workers do not tokenize, so nothing is lost by saying so.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A loader draws a seed for its workers at every start. With a generator of its own it leaves the global one alone,
    # which dropout draws from: what is trained must not depend on how often somebody iterated.
    return {"num_workers": workers, "pin_memory": pinned, "generator": torch.Generator()}
