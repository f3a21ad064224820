"""What is known of each optimizer step, read from the device in blocks: to wait for a loss would hold up the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from reference.engines.clock import StepTimer
from reference.engines.ranks import Ranks
from reference.engines.training import Point, TrainingRun
from reference.pipelines.pipeline import BatchSize

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
