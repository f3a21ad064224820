"""The inputs and the result of every engine: a recipe, an execution and a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from touchstone.engines import EngineError as EngineError
from touchstone.fields import FrozenModel
from touchstone.pipelines.pipeline import Score

if TYPE_CHECKING:  # importing it takes seconds, which only code that makes a model should pay
    from transformers import PreTrainedModel

Precision = Literal["fp32", "bf16", "fp16"]
Phase = Literal["prepare", "train", "evaluate", "save"]


class Recipe(FrozenModel):
    """The hyper-parameters. They are part of what is measured, so they are in a spec's hash."""

    epochs: float = Field(gt=0)
    stop_after: int | None = Field(
        default=None,
        gt=0,
        exclude_if=lambda value: value is None,  # recipes without it keep their hash
        description="optimizer steps: training ends there, on the schedule of all the epochs",
    )
    batch_size: int = Field(gt=0, description="examples a micro-batch, over all ranks")
    accumulation: int = Field(default=1, gt=0, description="micro-batches an optimizer step")
    learning_rate: float = Field(gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    max_grad_norm: float = Field(default=1.0, gt=0)

    @property
    def scheduler_type(self) -> str:
        """The schedule's name in transformers, where plain `constant` ignores warm-up."""
        return "constant_with_warmup" if self.schedule == "constant" and self.warmup_steps else self.schedule


@dataclass(frozen=True)
class Execution:
    """Where and how a recipe runs. It must not change the metrics beyond rounding."""

    seed: int
    device: str = "cpu"
    precision: Precision = "fp32"
    eval_batch_size: int = 64
    workers: int = 0
    save_dir: Path | None = None
    """The directory for a checkpoint after every epoch; None: no checkpoints."""
    resume: bool = False
    """Resume from the newest checkpoint in `save_dir`, if there is one. Requires `save_dir`."""
    deterministic: bool = True
    """Use only kernels that give the same bits every time. False allows a GPU faster ones."""


@dataclass(frozen=True)
class Point:
    """One optimizer step of the trajectory.

    `samples`, `tokens` and `seconds` (of training only) are totals since the start; `loss` is the mean over the step's
    items.
    """

    step: int
    samples: int
    tokens: int
    seconds: float
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Evaluation:
    """The scores of the validation split. `epoch` 0 is before training."""

    epoch: float
    step: int
    scores: tuple[Score, ...]
    seconds: float


@dataclass(frozen=True)
class Progress:
    """A progress report. If several ranks train, it describes the rank that sends it."""

    phase: Phase
    step: int
    steps: int
    loss: float | None = None
    score: Score | None = None


Report = Callable[[Progress], None]


@dataclass
class TrainingRun:
    """The result of a training run.

    If several ranks trained, each has the whole result: tokens and samples are sums over the ranks, and times are those
    of the slowest rank.
    """

    trajectory: list[Point] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds by phase: prepare, model, train, evaluate, save."""
    step_seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    padded_tokens: int = 0
    items: int = 0
    """Terms of the loss sums: labelled tokens, or answers."""
    host_bytes: list[int] = field(default_factory=list)
    """The peak memory of each rank."""
    device_bytes: list[int] | None = None
    """The peak memory of each rank on its device; None if the host is the device."""
    parameters: int = 0
    sample_outputs: dict[str, list[str]] = field(default_factory=dict)
    """The lines of `Pipeline.sample_outputs`, `before` and `after` training. Only rank 0 has them."""
    model: PreTrainedModel | None = None

    @property
    def peak_host_bytes(self) -> int:
        """The largest peak of any rank."""
        return max(self.host_bytes, default=0)

    @property
    def peak_device_bytes(self) -> int | None:
        """The largest peak of any rank on its device; None if the host is the device."""
        return None if self.device_bytes is None else max(self.device_bytes)
