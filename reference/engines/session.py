"""One run from preparation to result: everything that engines share, so that each holds its own loop and no more."""

from __future__ import annotations

import gc
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, get_scheduler, set_seed
from transformers.utils import logging

from touchstone.engines.checkpoint import Saved, checkpoints, identify, load_weights, newest, write_run
from touchstone.engines.device import peak_device_bytes, peak_host_bytes, reproducible, resolve_device
from touchstone.engines.evaluation import gather_shares, predict_share, score_shares
from touchstone.engines.order import EpochLoader, training_batches
from touchstone.engines.ranks import Ranks
from touchstone.engines.training import (
    EngineError,
    Evaluation,
    Execution,
    Phase,
    Point,
    Progress,
    Recipe,
    Report,
    TrainingRun,
)
from touchstone.pipelines.pipeline import Batch, BatchSize, Pipeline, Score

# Libraries that print and draw progress bars, kept silent while an engine reports by itself.


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers and datasets, errors only in transformers' log; as before afterwards."""
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


# Time by phase, and the time of each training step, without a device ever being waited for in between.


class Clock:
    """Seconds by phase. An inner phase stops the outer one: evaluation within training is not training.

    On a CUDA device the phases' boundaries wait for it, since work that was handed over belongs to the phase that
    handed it over.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._phases: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._charge()
        self._phases.append(name)
        self.seconds.setdefault(name, 0.0)
        try:
            yield
        finally:
            self._charge()
            self._phases.pop()

    def _charge(self) -> None:
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._phases:
            self.seconds[self._phases[-1]] += now - self._since
        self._since = now


class StepTimer:
    """Seconds of each step, from marks: `start` when training begins or goes on, `mark` after every step.

    On a CUDA device a mark is an event in its stream, read only when the device is idle anyway.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[float | torch.cuda.Event] = []

    def start(self) -> None:
        self._marks = [self._now()]

    def mark(self) -> None:
        self._marks.append(self._now())

    def collect(self) -> list[float]:
        """Seconds of the steps since `start`; the marks begin anew at the last one."""
        marks, self._marks = self._marks, self._marks[-1:]
        if self._cuda and len(marks) > 1:
            marks[-1].synchronize()  # type: ignore[union-attr]
        return [self._between(first, second) for first, second in pairwise(marks)]

    def _now(self) -> float | torch.cuda.Event:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    @staticmethod
    def _between(first: float | torch.cuda.Event, second: float | torch.cuda.Event) -> float:
        if isinstance(first, float) or isinstance(second, float):
            return float(second) - float(first)  # type: ignore[arg-type]
        return float(first.elapsed_time(second)) / 1e3


# How a run says how far it is: often enough for an eye, rarely enough to cost nothing.


A_SECOND = 10
"""To read a loss for it waits for the device."""


class Reporter:
    """Passes on to `report`, where there is one, what is not too soon after the last."""

    def __init__(self, report: Report | None) -> None:
        self._report = report
        self._last = 0.0

    def say(self, phase: Phase, step: int, steps: int, *, loss: Callable[[], float] | None = None) -> None:
        """The beginning of a phase, step 0, is never too soon.

        Args:
            loss: called only if it is told.
        """
        now = time.perf_counter()
        if self._report is not None and (step == 0 or now - self._last >= 1 / A_SECOND):
            self._last = now
            self._report(Progress(phase, step, steps, loss=None if loss is None else loss()))

    def saving(self, step: int, steps: int) -> None:
        """A checkpoint is about to be written."""
        self._last = 0.0
        self.say("save", step, steps)

    def scored(self, examples: int, *, score: Score) -> None:
        """An evaluation of so many examples is done."""
        if self._report is not None:
            self._report(Progress("evaluate", examples, examples, score=score))


# What is known of each optimizer step, read from the device in blocks: to wait for a loss would hold up the next.


UNREAD = 500
"""Steps after which the losses are read: waiting for them so rarely costs nothing, and no run goes on for hours at NaN.
"""


class Step(NamedTuple):
    """Of this rank: see `Session.step_done`."""

    loss: torch.Tensor
    sizes: Sequence[BatchSize]
    learning_rate: float


class StepLog:
    """Writes the trajectory, the steps' seconds and the totals of a run."""

    def __init__(self, run: TrainingRun, *, ranks: Ranks, device: torch.device) -> None:
        self._run = run
        self._ranks = ranks
        self._timer = StepTimer(device)
        self._unread: list[Step] = []

    @property
    def unread(self) -> int:
        return len(self._unread)

    @property
    def done(self) -> int:
        """Optimizer steps behind us, read or not."""
        return len(self._run.trajectory) + self.unread

    def start(self) -> None:
        """The next step begins now."""
        self._timer.start()

    def note(self, loss: torch.Tensor, *, sizes: Sequence[BatchSize], learning_rate: float) -> None:
        self._timer.mark()
        self._unread.append(Step(loss, sizes, learning_rate))

    def read(self) -> list[Point]:
        """The steps since the last time: sums over the ranks, and the slowest's time. All ranks must come here."""
        steps, self._unread = self._unread, []
        if not steps:
            return []
        ranks, run = self._ranks, self._run
        seconds = ranks.max(self._timer.collect())
        losses = ranks.sum(torch.stack([step.loss for step in steps]).tolist())
        samples, tokens, padded, items = (
            ranks.sum([sum(getattr(size, name) for size in step.sizes) for step in steps])
            for name in ("examples", "tokens", "padded_tokens", "items")
        )
        last = run.trajectory[-1] if run.trajectory else Point(0, 0, 0, 0.0, 0.0, 0.0)
        for i, step in enumerate(steps):
            run.tokens += int(tokens[i])
            run.padded_tokens += int(padded[i])
            run.items += int(items[i])
            run.step_seconds.append(seconds[i])
            last = Point(
                step=last.step + 1,
                samples=last.samples + int(samples[i]),
                tokens=run.tokens,
                seconds=last.seconds + seconds[i],
                loss=losses[i],
                learning_rate=step.learning_rate,
            )
            run.trajectory.append(last)
        return run.trajectory[-len(steps) :]


@contextmanager
def imports_out_of_sight() -> Iterator[None]:
    """Let the garbage collector pass over what was there before: the libraries' half a million objects, which cost it
    up to half a second each time, in the midst of some training step."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def divisor(batch: Batch, items: int) -> float:
    """What the sum of a micro-batch's losses is divided by: the step's items; infinity for a rank's stand-in (see
    `touchstone.engines.order`), from which nothing may be learnt."""
    return items if batch["size"].examples else math.inf


class Session:
    """A run in the making.

    An engine enters `open()`, then trains `loader` for `steps` optimizer steps: within `training()` it calls
    `step_done` after each, within `between_epochs()` it evaluates and saves.

    Where several ranks train, each has a session, and an engine has three things to do: divide its losses by `items` of
    the whole step, add up the gradients of all ranks, and let rank 0 alone write checkpoints.

    Attributes:
        ranks: which of the processes that train together this is.
        loader: this rank's share of the training batches; `set_epoch` says which.
        steps_an_epoch: optimizer steps that see every example once (the last may hold fewer micro-batches).
        steps: optimizer steps that are trained.
        scheduled_steps: optimizer steps that the learning rate's schedule is laid out over: more, where the recipe
            stops before its epochs are over.
        start: where to go on from: the checkpoint and what it says, or None.
    """

    loader: EpochLoader
    steps_an_epoch: int
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

    @contextmanager
    def open(self) -> Iterator[PreTrainedModel]:
        """Prepare the data and the model, and afterwards complete the result."""
        execution, run = self.execution, self.run
        with quiet(), reproducible(execution, self.device), imports_out_of_sight():
            with self._clock.phase("prepare"):  # whatever is no other phase, the libraries' own preparations among it
                self._reporter.say("prepare", 0, 0)
                self._prepare()
                with self._clock.phase("model"):
                    set_seed(execution.seed)
                    model = self.pipeline.model().to(self.device)  # type: ignore[arg-type]
                    run.parameters = sum(parameter.numel() for parameter in model.parameters())
                    if self.start is not None:
                        self._restore(*self.start, model=model)
                    # Dropout's stream begins here, whether the model took many draws, few or none.
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
        self.steps_an_epoch = math.ceil(len(self.loader) / recipe.accumulation)
        self.scheduled_steps = math.ceil(recipe.epochs * self.steps_an_epoch)
        self.steps = min(self.scheduled_steps, recipe.stop_after or self.scheduled_steps)
        if self.steps == 0:
            raise EngineError("the train split has no examples")
        for split in ("train", "validation"):
            self._agree(f"examples of the {split} split", len(next(iter(self.pipeline.columns(split).values()))))
        self.start = None
        if execution.save_dir is None:
            if execution.resume:
                raise EngineError("resume needs a save_dir to resume from")
            return
        self.identity = identify(
            self.pipeline, engine=self.engine, recipe=recipe, seed=execution.seed, world_size=self.ranks.world
        )
        if execution.resume:
            self.start = newest(execution.save_dir, identity=self.identity)
            self._agree(f"the step to go on from in {execution.save_dir}", self.start[1].step if self.start else 0)
        elif found := checkpoints(execution.save_dir):
            raise EngineError(f"{found[-1][1]} is there already: resume from it, or save elsewhere")

    def _agree(self, what: str, number: int) -> None:
        """Ranks that go different ways would wait for each other until they give up."""
        found = [int(one) for one in self.ranks.each(number)]
        if len(set(found)) > 1:
            raise EngineError(
                f"the ranks differ in {what}: {found}. All nodes must see the same files, at the same place"
            )

    def _restore(self, path: Path, saved: Saved, *, model: PreTrainedModel) -> None:
        load_weights(model, path)
        saved.restore(self.run)
        self._clock.seconds.update({name: self._clock.seconds.get(name, 0.0) + s for name, s in saved.phases.items()})

    @property
    def done(self) -> int:
        """Optimizer steps behind us."""
        return self._steps.done

    # Training ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def training(self) -> Iterator[None]:
        """The training clock runs within, except between epochs."""
        with self._clock.phase("train"):
            self._steps.start()
            yield
            self._read_steps()

    @contextmanager
    def between_epochs(self) -> Iterator[None]:
        """The training clock stands still within."""
        self._read_steps()
        with self._clock.phase("save"):
            yield
        self._steps.start()

    def epoch(self) -> Iterator[list[Batch]]:
        """The micro-batches of each optimizer step that is left of the current epoch, which begins here."""
        self.loader.set_epoch(self.done // self.steps_an_epoch)
        batches = iter(self.loader)
        for _ in range(min(self.steps_an_epoch, self.steps - self.done)):
            yield list(islice(batches, self.recipe.accumulation))

    def schedule(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """The recipe's learning rate by step, put into the optimizer."""
        schedule: LRScheduler = get_scheduler(
            self.recipe.scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=self.recipe.warmup_steps,
            num_training_steps=self.scheduled_steps,
        )
        return schedule

    def items(self, sizes: Sequence[BatchSize]) -> int:
        """Terms of the step's loss over all its micro-batches and all ranks, at least 1: what to divide the loss by.

        Args:
            sizes: of this rank's micro-batches.
        """
        return max(int(self.ranks.sum([sum(size.items for size in sizes)])[0]), 1)

    def step_done(self, loss: torch.Tensor, *, sizes: Sequence[BatchSize], learning_rate: float) -> None:
        """Note an optimizer step.

        Args:
            loss: () the sum of this rank's losses divided by the step's `items`, on whatever device; not read now.
                The step's mean loss is the sum of these over all ranks.
            sizes: of this rank's micro-batches.
            learning_rate: what the step was taken with.
        """
        self._steps.note(loss, sizes=sizes, learning_rate=learning_rate)
        if self._steps.unread == UNREAD:
            self._read_steps()
        # Estimated from this rank's share; the trajectory has the whole.
        self._reporter.say("train", self.done, self.steps, loss=lambda: float(loss) * self.ranks.world)

    def _read_steps(self) -> None:
        for point in self._steps.read():
            if not math.isfinite(point.loss):
                raise EngineError(
                    f"the loss of step {point.step} is {point.loss}: training diverged; lower learning_rate "
                    f"{self.recipe.learning_rate:g} or take another precision than {self.execution.precision}"
                )

    # Evaluation and checkpoints ---------------------------------------------------------------------------------------

    def evaluate(self, model: torch.nn.Module, *, together: int = 1) -> Evaluation:
        """Score the validation split: every rank predicts its share, rank 0 scores them all.

        Args:
            model: not wrapped, for a wrapper would have the ranks wait for each other at every batch.
            together: batches of the execution's size that are predicted as one.
        """
        step = self.done
        examples = len(next(iter(self.pipeline.columns("validation").values())))
        started = time.perf_counter()
        with self._clock.phase("evaluate"):
            self._reporter.say("evaluate", 0, examples)
            share = predict_share(
                self.pipeline,
                model=model,
                device=self.device,
                batch_size=together * self.execution.eval_batch_size,
                workers=self.execution.workers,
                rank=self.ranks.rank,
                world=self.ranks.world,
                each=lambda done: self._reporter.say("evaluate", min(done * self.ranks.world, examples), examples),
            )
            shares = gather_shares(share, ranks=self.ranks)
            plain = self.ranks.from_first(lambda: [asdict(score) for score in score_shares(self.pipeline, shares)])
            scores = tuple(Score(**score) for score in plain)
            if self.ranks.first and not self.run.evaluations:
                self.run.sample_outputs["before"] = self.pipeline.sample_outputs(model)
            if self.ranks.first and step == self.steps:
                self.run.sample_outputs["after"] = self.pipeline.sample_outputs(model)
        evaluation = Evaluation(step / self.steps_an_epoch, step, scores, time.perf_counter() - started)
        self.run.evaluations.append(evaluation)
        self._reporter.scored(examples, score=scores[0])
        return evaluation

    def saving(self) -> None:
        """Say that a checkpoint is about to be written."""
        self._reporter.saving(self.done, self.steps)

    def write(self, model: PreTrainedModel, *, states: Mapping[str, Any]) -> None:
        """A checkpoint of an engine that keeps its own: weights, tokenizer and `states` by file name. For rank 0
        alone."""
        assert self.execution.save_dir is not None
        directory = self.execution.save_dir / f"checkpoint-{self.done}"
        shutil.rmtree(directory, ignore_errors=True)  # what an interrupted save left
        model.save_pretrained(directory)
        self.pipeline.tokenizer.save_pretrained(directory)
        for name, state in states.items():
            torch.save(state, directory / name)
        self.complete(directory)

    def complete(self, checkpoint: Path) -> None:
        """Write beside the weights and states in `checkpoint` how far the run has come. For rank 0 alone."""
        write_run(checkpoint, Saved.of(self.run, identity=self.identity, step=self.done, phases=self._clock.seconds))
