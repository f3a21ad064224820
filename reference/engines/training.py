"""What every engine takes and gives: a recipe (what is trained), an execution (where and how), and a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from touchstone.engines import EngineError as EngineError
from touchstone.pipelines.pipeline import Score

if TYPE_CHECKING:  # it takes seconds to import: only those who make a model pay
    from transformers import PreTrainedModel

Precision = Literal["fp32", "bf16", "fp16"]
Phase = Literal["prepare", "train", "evaluate", "save"]


class Recipe(BaseModel):
    """The hyper-parameters: part of what is measured, and so of a spec's hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: float = Field(gt=0)
    stop_after: int | None = Field(
        default=None,
        gt=0,
        exclude_if=lambda value: value is None,  # not in the hash of the recipes that do without
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
        """The schedule's name in transformers, whose plain `constant` knows no warm-up."""
        return "constant_with_warmup" if self.schedule == "constant" and self.warmup_steps else self.schedule


@dataclass(frozen=True)
class Execution:
    """Where and how a recipe runs: must not change what is measured beyond rounding."""

    seed: int
    device: str = "cpu"
    precision: Precision = "fp32"
    eval_batch_size: int = 64
    workers: int = 0
    save_dir: Path | None = None
    """A checkpoint after every epoch goes here, when given."""
    resume: bool = False
    """Go on from the newest checkpoint in `save_dir`, if there is one. Needs `save_dir`."""
    deterministic: bool = True
    """Only kernels that give the same bits every time. False lets a GPU take faster ones."""


@dataclass(frozen=True)
class Point:
    """One optimizer step: totals since the start, `seconds` of training alone, `loss` the mean over its items."""

    step: int
    samples: int
    tokens: int
    seconds: float
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Evaluation:
    """The validation split, scored. `epoch` 0 is before training."""

    epoch: float
    step: int
    scores: tuple[Score, ...]
    seconds: float


@dataclass(frozen=True)
class Progress:
    """What an engine says while it works: where several ranks train, as seen from the one that is listened to."""

    phase: Phase
    step: int
    steps: int
    loss: float | None = None
    score: Score | None = None


Report = Callable[[Progress], None]


@dataclass
class TrainingRun:
    """Everything an engine knows about a run that it finished.

    Where several ranks trained it, each knows it: tokens and samples are sums over them, times those of the slowest.
    """

    trajectory: list[Point] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds by phase: prepare, model, train, evaluate, save."""
    step_seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    padded_tokens: int = 0
    items: int = 0
    """Terms that the losses summed over: labelled tokens; answers."""
    host_bytes: list[int] = field(default_factory=list)
    """Each rank's peak."""
    device_bytes: list[int] | None = None
    """Each rank's peak on its own device; None where there is no device beside the host."""
    parameters: int = 0
    sample_outputs: dict[str, list[str]] = field(default_factory=dict)
    """The lines of `Pipeline.sample_outputs`, `before` and `after` training. Only rank 0 has them."""
    model: PreTrainedModel | None = None

    @property
    def peak_host_bytes(self) -> int:
        """Of the rank that held most."""
        return max(self.host_bytes, default=0)

    @property
    def peak_device_bytes(self) -> int | None:
        """Of the rank that held most; None where there is no device beside the host."""
        return None if self.device_bytes is None else max(self.device_bytes)
