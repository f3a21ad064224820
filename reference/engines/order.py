"""The order of examples in training and evaluation: the same in every engine and for any number of workers.

The order of an epoch depends only on (seed, epoch), so a resumed run needs no generator state for it.
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
    """A random order of `size` examples, different in each epoch.

    The permutation sorts raw 64-bit draws. NumPy guarantees the stream of a bit generator forever, but that of
    `Generator.permutation` only within a version (NEP 19).
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def permutation(self, epoch: int) -> Array:
        """Return (size,) the examples in the order of this epoch."""
        draws = np.random.PCG64(np.random.SeedSequence([self.seed, epoch])).random_raw(self.size)
        return np.argsort(draws, kind="stable").astype(np.int64)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Key]:
        epoch = self.epoch
        return ((epoch, index) for index in self.permutation(epoch).tolist())


class EvaluationOrder(Sampler[Key]):
    """Every example once, the longest first, so that batches have little padding and a lack of memory shows at once.

    Of `world` processes, each takes every `world`-th example, starting from its `rank`.
    """

    def __init__(self, lengths: Array, *, rank: int = 0, world: int = 1) -> None:
        self.indices: list[int] = np.argsort(-lengths, kind="stable")[rank::world].tolist()

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Key]:
        return ((0, index) for index in self.indices)


class Shares(Sampler[list[Key]]):
    """One rank's examples of each micro-batch: none if a micro-batch has fewer examples than there are ranks."""

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
    """Batches of the epoch given to `set_epoch`, which transformers and Accelerate also call."""

    batch_sampler: Shares

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.order.epoch = epoch


def training_batches(
    pipeline: Pipeline, *, batch_size: int, seed: int, ranks: Ranks, workers: int = 0, pinned: bool = False
) -> EpochLoader:
    """Return a loader of the train split, one epoch at a time.

    Args:
        batch_size: examples per micro-batch, over all ranks. All ranks get the same number of batches: a rank without
            examples gets a stand-in of size 0, since it must take part in the ranks' communication.
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
    """Return a loader of one rank's share of the validation split, and the example of each row it will yield."""
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
        # Tokenizers warn about forks after they have used threads. Workers do not tokenize.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A loader draws a seed at every start. Its own generator leaves the global one, which dropout uses, unchanged: the
    # training must not depend on how often a loader was iterated.
    return {"num_workers": workers, "pin_memory": pinned, "generator": torch.Generator()}
