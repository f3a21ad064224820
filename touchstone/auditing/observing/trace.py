"""What a training loop did while it was observed: calls of the model, optimizer steps, passes over data, metrics.

`Recorder` (record.py) writes a `Trace`; `loop.py` puts it on the subject as `subject.trace`. A subject that was not
made from an observed loop has None there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from touchstone.auditing.subject import Batch


@dataclass
class LossCall:
    """One call of `cross_entropy` or `nll_loss`, by the model or by the script.

    Args:
        target: the target ids, as passed.
        inside: it was called within the model's forward.
        shape: the shape of the logits that were passed.
        ignore_index: as passed.
        reduction: `mean`, `sum` or `none`.
        label_smoothing: as passed.
        weighted: class weights were passed.
        where: `file:line` of the call in the user's code.
        value: what it returned, or None if that is one number per label.
    """

    target: Any
    inside: bool
    shape: tuple[int, ...]
    ignore_index: int = -100
    reduction: str = "mean"
    label_smoothing: float = 0.0
    weighted: bool = False
    where: str = ""
    value: float | None = None


@dataclass
class Forward:
    """One call of the trained model by the script.

    Args:
        batch: what the model received, by argument name; `input_ids` and `labels` stand for the names that the model
            gives them. The labels may come from `cross_entropy`. Empty where only the flags were kept.
        training: the model was in training mode.
        grad: gradients were recorded.
        generating: the call came from `generate`.
        passing: the index of the pass over a loader that gave the batch (in `Trace.passes`), or None.
        step: the number of optimizer steps taken before.
        aligned: label i belongs to logits i even though the model predicts next tokens (shifted outside the model).
        losses: calls of `cross_entropy` within it, or on its output.
        loss: the loss that the model returned, or None.
        where: `file:line` of the call in the user's code.
    """

    batch: Batch
    training: bool
    grad: bool
    generating: bool = False
    passing: int | None = None
    step: int = 0
    aligned: bool = False
    losses: list[LossCall] = field(default_factory=list)
    loss: float | None = None
    where: str = ""


@dataclass
class Clip:
    """One call of `clip_grad_norm_` or `clip_grad_value_`.

    Args:
        limit: the largest norm or value.
        norm: the total norm it returned, or None.
        backwards: backward calls since the last optimizer step.
        where: `file:line` of the call in the user's code.
        scaled: the gradients still had the factor of a GradScaler.
    """

    limit: float
    norm: float | None
    backwards: int
    where: str = ""
    scaled: bool = False


@dataclass
class Update:
    """One optimizer step.

    Args:
        forwards: the indices of the calls of the model (in `Trace.forwards`) that led to it.
        losses: the values on which backward was called since the last step.
        leftover: the norm of the optimizer's gradients before the first of these backward calls: 0 if they were zeroed.
            None before its first step.
        clips: clipping since the last step, in order.
        rates: the learning rate of each parameter group in this step.
        scheduler_steps: calls of the schedule's `step` between this optimizer step and the next.
        backwards_before_zero: backward calls since the last step whose gradients were zeroed before the step.
        passing: the index of the pass over the training loader (in `Trace.passes`), or None.
        optimizer: the index of the optimizer (in `Trace.optimizers`).
        scale: the factor of the GradScaler, 1 without one. `losses` do not have it.
        where: `file:line` of the call in the user's code.
    """

    forwards: list[int]
    losses: list[float]
    leftover: float | None
    clips: list[Clip]
    rates: list[float]
    scheduler_steps: int = 0
    backwards_before_zero: int = 0
    passing: int | None = None
    optimizer: int = 0
    scale: float = 1.0
    where: str = ""


@dataclass
class Pass:
    """One pass over a DataLoader.

    Args:
        loader: the index of the loader (in `Trace.loaders`).
        indices: the rows of each batch drawn, in order, or empty if the data has no indices.
        batches: batches handed out.
        ended: it came to its end by itself.
        shortened: it was ended early so that the audit is quick.
        training: backward was called on one of its batches.
        step: the number of optimizer steps taken before it began.
    """

    loader: int
    indices: list[list[int]] = field(default_factory=list)
    batches: int = 0
    ended: bool = False
    shortened: bool = False
    training: bool = False
    step: int = 0


@dataclass
class OptimizerFacts:
    """An optimizer that took a step.

    Args:
        optimizer: the optimizer itself. Probes must not change it.
        missing: names of the model's trainable parameters that it does not hold.
        foreign: the number of its parameters that belong to no module that the script called, and had no gradient.
        groups: per parameter group, the names of the model's parameters.
        decays: per parameter group, the weight decay.
        twice: names of parameters that it holds more than once.
        unmoved: names of trainable parameters that it does not hold, but which receive a gradient.
    """

    optimizer: Any
    missing: list[str] = field(default_factory=list)
    foreign: int = 0
    groups: list[list[str]] = field(default_factory=list)
    decays: list[float] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    unmoved: list[str] = field(default_factory=list)


@dataclass
class MetricCall:
    """One call of a metric by the script (`evaluate`, seqeval, sacrebleu, sklearn).

    Args:
        name: such as `seqeval.f1_score` or `seqeval.add_batch`.
        predictions: as passed, or None.
        references: as passed, or None.
        result: what it returned.
        step: the number of optimizer steps taken before.
        where: `file:line` of the call in the user's code.
    """

    name: str
    predictions: Any
    references: Any
    result: Any = None
    step: int = 0
    where: str = ""


@dataclass
class Reported:
    """A loss or a perplexity that the script printed or logged.

    Args:
        name: how the script calls it, such as `val loss`.
        value: the number.
        tolerance: half a unit of its last digit.
        forwards: the number of calls of the model before (of those in `Trace.forwards`).
        where: `file:line` in the user's code.
    """

    name: str
    value: float
    tolerance: float
    forwards: int
    where: str = ""


@dataclass
class Trace:
    """Everything that was observed of a training loop.

    Args:
        forwards: the calls of the trained model, in order.
        updates: the optimizer steps, in order.
        passes: the passes over DataLoaders, in order.
        loaders: the DataLoaders of these passes.
        optimizers: the optimizers that took a step.
        schedules: the schedules that were made or stepped.
        early_scheduler_steps: calls of the schedule's `step` before the first optimizer step.
        metrics: calls of metrics, in order.
        generations: what `generate` was given, in order.
        reported: the losses and perplexities that the script printed or logged, in order.
        accumulate: `accelerator.accumulate` was used.
        epochs: the length of the loop around the passes over the training loader, or None if unknown.
        max_steps: the length of the loop around the optimizer steps if no loader is used, or None if unknown.
        breaks: a loop around the optimizer step contains `break` or `return`, so that it may end early.
        unstepped: backward calls since the last optimizer step when the observation ended.
        ended: why the observation ended.
    """

    forwards: list[Forward] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)
    loaders: list[Any] = field(default_factory=list)
    optimizers: list[OptimizerFacts] = field(default_factory=list)
    schedules: list[Any] = field(default_factory=list)
    early_scheduler_steps: int = 0
    metrics: list[MetricCall] = field(default_factory=list)
    generations: list[Mapping[str, Any]] = field(default_factory=list)
    reported: list[Reported] = field(default_factory=list)
    accumulate: bool = False
    epochs: int | None = None
    max_steps: int | None = None
    breaks: bool = False
    unstepped: int = 0
    ended: str = ""

    def training_passes(self) -> Sequence[Pass]:
        """Return the passes whose batches were trained on."""
        return [each for each in self.passes if each.training]

    def evaluation_forwards(self) -> Sequence[Forward]:
        """Return the calls of the model without gradients, those of `generate` left out."""
        return [each for each in self.forwards if not each.grad and not each.generating]
