"""One training run from preparation to result: everything that engines share except the training loop."""

from __future__ import annotations

import gc
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, get_scheduler, set_seed
from transformers.utils import logging

from touchstone.engines.checkpoint import Saved, checkpoints, identify, load_weights, newest, write_run
from touchstone.engines.device import peak_device_bytes, peak_host_bytes, reproducible, resolve_device
from touchstone.engines.evaluation import gather_shares, predict_share, score_shares
from touchstone.engines.order import EpochLoader, training_batches
from touchstone.engines.progress import READ_LOSSES_EVERY, Clock, Reporter, StepLog
from touchstone.engines.ranks import Ranks
from touchstone.engines.training import EngineError, Evaluation, Execution, Recipe, Report, TrainingRun
from touchstone.pipelines.pipeline import Batch, BatchSize, Pipeline, Score


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars of transformers and datasets and the log of transformers, except for errors."""
    verbosity = logging.get_verbosity()
    bars, data_bars = logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        if data_bars:
            datasets.enable_progress_bars()


@contextmanager
def freeze_gc() -> Iterator[None]:
    """Exclude all existing objects from garbage collection.

    The imported libraries hold half a million objects. Visiting them takes the collector up to half a second, in the
    middle of a training step.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def divisor(batch: Batch, items: int) -> float:
    """Return what to divide the summed loss of a micro-batch by: the items of the whole optimizer step.

    Infinity for the stand-in batch of a rank without examples (see `touchstone.engines.order`), so that nothing is
    learnt from it.
    """
    return items if batch["size"].examples else math.inf


def parameter_groups(model: torch.nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the optimizer's groups of trainable parameters.

    Weight decay applies only to matrices, not to biases and the gains of normalization layers, which are vectors.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


class Session:
    """A run in progress. docs/your-own-engine.md shows a complete engine that uses it.

    An engine enters `open()`, which gives the model, and `training()`. In there it takes the optimizer steps of each
    `epoch()` and calls `step_done` after each. Within `between_epochs()` it calls `evaluate` and writes checkpoints.

    If several ranks train, each has a session, and an engine has three more duties: it divides its losses by `items` of
    the whole step, sums the gradients over all ranks, and writes checkpoints only on rank 0.

    Attributes:
        ranks: this process among those that train together.
        device: the device of this rank.
        loader: this rank's share of the training batches; `set_epoch` chooses the epoch.
        steps_per_epoch: optimizer steps that see every example once (the last may have fewer micro-batches).
        steps: optimizer steps to train.
        scheduled_steps: optimizer steps of the learning rate schedule: more than `steps` if the recipe stops early.
        start: the checkpoint to resume from and its `run.json`, or None.
        run: the result, filled in as the run proceeds.
    """

    loader: EpochLoader
    steps_per_epoch: int
    steps: int
    scheduled_steps: int
    start: tuple[Path, Saved] | None

    def __init__(
        self, pipeline: Pipeline, *, engine: str, recipe: Recipe, execution: Execution, report: Report | None
    ) -> None:
        self.pipeline = pipeline
        self.engine = engine
        self.recipe = recipe
        self.execution = execution
        self.ranks = Ranks.current()
        self.device = resolve_device(self.ranks.own_device(execution.device), precision=execution.precision)
        self.run = TrainingRun()
        self._clock = Clock(self.device)
        self._steps = StepLog(self.run, ranks=self.ranks, device=self.device)
        self._reporter = Reporter(report)

    # Preparation and result -------------------------------------------------------------------------------------------

    @contextmanager
    def open(self) -> Iterator[PreTrainedModel]:
        """Prepare the data and the model; on exit complete the result."""
        execution, run = self.execution, self.run
        with quiet(), reproducible(execution, self.device), freeze_gc():
            with self._clock.phase("prepare"):  # everything that is in no other phase, such as the libraries' set-up
                self._reporter.progress("prepare", 0, 0)
                self._prepare()
                with self._clock.phase("model"):
                    set_seed(execution.seed)
                    model = self.pipeline.model().to(self.device)  # type: ignore[arg-type]
                    run.parameters = sum(parameter.numel() for parameter in model.parameters())
                    if self.start is not None:
                        self._restore(*self.start, model=model)
                    # Dropout starts from here, however many draws the model's initialization took.
                    set_seed(self.ranks.seed(execution.seed))
                yield model
            run.model = model
            phases = list(self._clock.seconds)
            slowest = self.ranks.max([self._clock.seconds[phase] for phase in phases])
            run.phases = dict(zip(phases, slowest, strict=True))
            run.host_bytes = [int(size) for size in self.ranks.each(peak_host_bytes())]
            if (held := peak_device_bytes(self.device)) is not None:
                run.device_bytes = [int(size) for size in self.ranks.each(held)]

    def _prepare(self) -> None:
        recipe, execution = self.recipe, self.execution
        self.pipeline.columns("validation")
        self.loader = training_batches(
            self.pipeline,
            batch_size=recipe.batch_size,
            seed=execution.seed,
            ranks=self.ranks,
            workers=execution.workers,
            pinned=self.device.type == "cuda",
        )
        self.steps_per_epoch = math.ceil(len(self.loader) / recipe.accumulation)
        self.scheduled_steps = math.ceil(recipe.epochs * self.steps_per_epoch)
        self.steps = min(self.scheduled_steps, recipe.stop_after or self.scheduled_steps)
        if self.steps == 0:
            raise EngineError("the train split has no examples: choose other data")
        for split in ("train", "validation"):
            self._check_ranks_agree(f"examples of the {split} split", self._examples(split))
        self.start = None
        if execution.save_dir is None:
            if execution.resume:
                raise EngineError("resume is set without save_dir: give the directory of the checkpoints as save_dir")
            return
        self.identity = identify(
            self.pipeline, engine=self.engine, recipe=recipe, seed=execution.seed, world_size=self.ranks.world
        )
        if execution.resume:
            self.start = newest(execution.save_dir, identity=self.identity)
            step = self.start[1].step if self.start else 0
            self._check_ranks_agree(f"the step to resume from in {execution.save_dir}", step)
        elif found := checkpoints(execution.save_dir):
            raise EngineError(f"{found[-1][1]} exists already: resume from it, or choose another save_dir")

    def _examples(self, split: str) -> int:
        return len(next(iter(self.pipeline.columns(split).values())))

    def _check_ranks_agree(self, what: str, number: int) -> None:
        """Ranks that take different numbers of steps would wait for each other until they time out."""
        found = [int(one) for one in self.ranks.each(number)]
        if len(set(found)) > 1:
            raise EngineError(f"the ranks differ in {what}: {found}. All nodes need the same files at the same paths")

    def _restore(self, path: Path, saved: Saved, *, model: PreTrainedModel) -> None:
        load_weights(model, path)
        saved.restore(self.run)
        self._clock.seconds.update({name: self._clock.seconds.get(name, 0.0) + s for name, s in saved.phases.items()})

    # Training ---------------------------------------------------------------------------------------------------------

    @property
    def done(self) -> int:
        """The number of optimizer steps so far."""
        return self._steps.done

    @contextmanager
    def training(self) -> Iterator[None]:
        """Run the training clock, except within `between_epochs`."""
        with self._clock.phase("train"):
            self._steps.start()
            yield
            self._read_steps()

    @contextmanager
    def between_epochs(self) -> Iterator[None]:
        """Pause the training clock."""
        self._read_steps()
        with self._clock.phase("save"):
            yield
        self._steps.start()

    def epoch(self) -> Iterator[list[Batch]]:
        """Yield the micro-batches of each optimizer step in the current epoch."""
        self.loader.set_epoch(self.done // self.steps_per_epoch)
        batches = iter(self.loader)
        for _ in range(min(self.steps_per_epoch, self.steps - self.done)):
            yield list(islice(batches, self.recipe.accumulation))

    def schedule(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """Return the recipe's learning rate schedule, attached to the optimizer."""
        schedule: LRScheduler = get_scheduler(
            self.recipe.scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=self.recipe.warmup_steps,
            num_training_steps=self.scheduled_steps,
        )
        return schedule

    def items(self, sizes: Sequence[BatchSize]) -> int:
        """Return the items of an optimizer step, over all its micro-batches and all ranks: the divisor of the loss.

        At least 1, so that a step without items has a loss of 0.

        Args:
            sizes: the sizes of this rank's micro-batches.
        """
        return max(int(self.ranks.sum([sum(size.items for size in sizes)])[0]), 1)

    def step_done(self, loss: torch.Tensor, *, sizes: Sequence[BatchSize], learning_rate: float) -> None:
        """Log an optimizer step.

        Args:
            loss: () the sum of this rank's losses divided by the step's `items`, on any device; it is read later. The
                sum over all ranks is the mean loss of the step.
            sizes: the sizes of this rank's micro-batches.
            learning_rate: the learning rate of the step.

        Raises:
            EngineError: the loss of a step is not finite.
        """
        self._steps.add(loss, sizes=sizes, learning_rate=learning_rate)
        if self._steps.unread == READ_LOSSES_EVERY:
            self._read_steps()
        # This rank's loss times the number of ranks is an estimate. The trajectory has the exact loss.
        self._reporter.progress("train", self.done, self.steps, loss=lambda: float(loss) * self.ranks.world)

    def _read_steps(self) -> None:
        for point in self._steps.read():
            if not math.isfinite(point.loss):
                raise EngineError(
                    f"the loss of step {point.step} is {point.loss}: training diverged; use a lower learning_rate than "
                    f"{self.recipe.learning_rate:g}, or another precision than {self.execution.precision}"
                )

    # Evaluation and checkpoints ---------------------------------------------------------------------------------------

    def evaluate(self, model: torch.nn.Module, *, batches_merged: int = 1) -> Evaluation:
        """Score the validation split. Each rank predicts its share; rank 0 scores all predictions.

        Args:
            model: not wrapped in DistributedDataParallel, which would synchronize the ranks at every batch.
            batches_merged: how many batches of the execution's size to predict at once.
        """
        step, examples = self.done, self._examples("validation")
        started = time.perf_counter()
        with self._clock.phase("evaluate"):
            self._reporter.progress("evaluate", 0, examples)
            share = predict_share(
                self.pipeline,
                model=model,
                device=self.device,
                batch_size=batches_merged * self.execution.eval_batch_size,
                workers=self.execution.workers,
                rank=self.ranks.rank,
                world=self.ranks.world,
                on_batch=lambda done: self._reporter.progress(
                    "evaluate", min(done * self.ranks.world, examples), examples
                ),
            )
            shares = gather_shares(share, ranks=self.ranks)
            plain = self.ranks.from_first(lambda: [asdict(score) for score in score_shares(self.pipeline, shares)])
            scores = tuple(Score(**score) for score in plain)
            if self.ranks.first and not self.run.evaluations:
                self.run.sample_outputs["before"] = self.pipeline.sample_outputs(model)
            if self.ranks.first and step == self.steps:
                self.run.sample_outputs["after"] = self.pipeline.sample_outputs(model)
        evaluation = Evaluation(step / self.steps_per_epoch, step, scores, time.perf_counter() - started)
        self.run.evaluations.append(evaluation)
        self._reporter.scored(examples, score=scores[0])
        return evaluation

    def saving(self) -> None:
        """Report that a checkpoint is about to be written. `write` does this itself."""
        self._reporter.saving(self.done, self.steps)

    def write(self, model: PreTrainedModel, *, states: Mapping[str, Any]) -> None:
        """Write a checkpoint: weights, tokenizer, `states` by file name, and `run.json`. Call it only on rank 0."""
        assert self.execution.save_dir is not None
        self.saving()
        directory = self.execution.save_dir / f"checkpoint-{self.done}"
        shutil.rmtree(directory, ignore_errors=True)  # the remains of an interrupted save
        model.save_pretrained(directory)
        self.pipeline.tokenizer.save_pretrained(directory)
        for name, state in states.items():
            torch.save(state, directory / name)
        self.complete(directory)

    def complete(self, checkpoint: Path) -> None:
        """Write `run.json`, the progress of the run, which completes a checkpoint. Call it only on rank 0."""
        write_run(checkpoint, Saved.of(self.run, identity=self.identity, step=self.done, phases=self._clock.seconds))
