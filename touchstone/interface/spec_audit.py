"""Audit what a spec would train, instead of training it (`pytest suite/ --audit`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from touchstone.auditing.finding import Report
from touchstone.auditing.probe import Budget, run_probes
from touchstone.auditing.subject import Split
from touchstone.auditing.trainer import subject_of
from touchstone.engines.order import EpochOrder
from touchstone.engines.session import Session
from touchstone.engines.trainer import prepared
from touchstone.engines.training import Execution
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import Batch, Columns, Feature, FeatureRows, Pipeline
from touchstone.runs.trials import Trial
from touchstone.sources import Access, open_source

ENGINE = "trainer"
"""The engine whose trials are audited: it is the one that makes a transformers.Trainer."""


def audit_trial(trial: Trial, *, budget: Budget = "default") -> Report:
    """Make the trainer of a trial, audit it, and return the report. Nothing is trained.

    Raises:
        SourceError: the data or the checkpoint is not available.
        EngineError: the device or the precision cannot be used.
    """
    spec, conditions = trial.spec, trial.conditions
    given = {name: None if path is None else Path(path) for name, path in spec.overrides.items()}
    access = Access(mirror=conditions.mirror, dataset=given.get("dataset"), checkpoint=given.get("checkpoint"))
    source = open_source(spec.data, spec.checkpoint, access=access)
    pipeline = PIPELINES[spec.task](source, options=spec.options, seed=trial.seed)
    execution = Execution(
        seed=trial.seed,
        device=conditions.device,
        precision=conditions.precision,  # type: ignore[arg-type]  # checked by options.check_precision
        eval_batch_size=spec.eval_batch_size,
    )
    session = Session(pipeline, engine=ENGINE, recipe=spec.recipe, execution=execution, report=None)
    with prepared(session) as trainer:
        subject = subject_of(trainer, task=spec.task)
        subject.name = trial.name
        subject.tokenizer = pipeline.tokenizer
        # The trainer's loaders ask for rows by epoch and index, which probes cannot know: give them the pipeline's.
        subject.train = _split(pipeline, "train", spec.recipe.batch_size)
        subject.evaluation = _split(pipeline, "evaluation", spec.eval_batch_size)
        subject.order = partial(_order, size=len(subject.train), own_seed=trial.seed)
        subject.repro = f"pytest suite/training --audit --profile {spec.profile} --task {spec.name}"
        return run_probes(subject, budget=budget)


class Rows(FeatureRows):
    """A split whose rows are found by their index alone."""

    def __init__(self, columns: Columns) -> None:
        super().__init__(columns)
        self.column_names = list(columns)

    def __getitem__(self, key: Any) -> Mapping[str, Any]:
        if not 0 <= key < self.size:
            raise IndexError(key)  # ends a loop over the rows
        return super().__getitem__((0, key))


def _split(pipeline: Pipeline, name: str, batch_size: int) -> Split:
    rows = Rows(pipeline.columns("train" if name == "train" else "validation"))
    return Split(name, rows, partial(_collate, pipeline=pipeline, train=name == "train"), batch_size)


def _collate(features: Sequence[Feature], *, pipeline: Pipeline, train: bool) -> Batch:
    """Collate as in any epoch of the training: random draws then differ from batch to batch, as in a training."""
    epoch = int(torch.randint(2**30, ())) if train else 0
    return pipeline.collate([{**feature, "epoch": epoch} for feature in features], train=train)


def _order(epoch: int, seed: int | None = None, *, size: int, own_seed: int, **_: Any) -> list[int]:
    """Return the rows of an epoch. They depend on nothing but the epoch and the seed."""
    permutation: list[int] = EpochOrder(size, seed=own_seed if seed is None else seed).permutation(epoch).tolist()
    return permutation
