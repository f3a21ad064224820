"""Compare two runs that must be the same, and report where they first differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from touchstone.engines.training import Progress, Report, TrainingRun


def losses(run: TrainingRun) -> list[float]:
    """Return the loss of each step."""
    return [point.loss for point in run.trajectory]


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    """Return the trained parameters and buffers by name, in float32 on the host."""
    assert run.model is not None
    return {name: value.detach().float().cpu().clone() for name, value in run.model.state_dict().items()}


def assert_same_bits(first: TrainingRun, second: TrainingRun, *, what: str = "the second run") -> None:
    """Assert that losses, scores and weights are equal to the last bit.

    Args:
        what: how the second run differs from the first, for the message.
    """
    __tracebackhide__ = True
    for one, other in zip(first.trajectory, second.trajectory, strict=True):
        assert other.loss == one.loss, f"{what}: the loss of step {one.step} was {one.loss!r}, then {other.loss!r}"
    for before, after in zip(first.evaluations, second.evaluations, strict=True):
        for score, again in zip(before.scores, after.scores, strict=True):
            assert again == score, f"{what}: {score.name} after epoch {before.epoch:g} was {score}, then {again}"
    expected, actual = weights(first), weights(second)
    assert actual.keys() == expected.keys()
    for name in expected:
        different = (expected[name] != actual[name]).sum().item()
        assert not different, f"{what}: {different} of {expected[name].numel()} weights of {name} differ after training"


def assert_close_losses(first: TrainingRun, second: TrainingRun, *, within: float, what: str) -> None:
    """Assert that no step's losses differ by more than `within` nats."""
    __tracebackhide__ = True
    for one, other in zip(first.trajectory, second.trajectory, strict=True):
        difference = abs(one.loss - other.loss)
        assert difference <= within, (
            f"{what}: the loss of step {one.step} was {one.loss!r}, then {other.loss!r}: "
            f"{difference:.2g} apart, rounding explains {within:g}"
        )


def assert_same_update(runs: Sequence[TrainingRun], *, within: float, what: Sequence[str]) -> None:
    """Assert that all runs ended with the weights of the first.

    Args:
        within: the largest distance allowed, as a fraction of the norm of the weights.
        what: a name for each run, for the message.
    """
    __tracebackhide__ = True
    expected = weights(runs[0])
    norm = _norm(expected)
    for run, name in zip(runs[1:], what[1:], strict=True):
        actual = weights(run)
        apart = _norm({key: actual[key] - value for key, value in expected.items()})
        assert apart <= within * norm, (
            f"{name} ended with other weights than {what[0]}: {apart:.3g} apart, with a norm of {norm:.3g}; "
            f"rounding explains {within * norm:.2g}"
        )


class Interrupted(Exception):
    """Raised by `interrupt_after` to stop a run."""


def interrupt_after(saves: int) -> Report:
    """Return a report that interrupts the run at the first evaluation after this many checkpoints."""
    seen = 0

    def report(progress: Progress) -> None:
        nonlocal seen
        seen += progress.phase == "save"
        if progress.phase == "evaluate" and seen >= saves:
            raise Interrupted

    return report


def assert_resumes(train: Callable[..., TrainingRun], *, save_dir: Path) -> None:
    """Assert that a run that was interrupted in its second epoch and resumed equals an uninterrupted one.

    Args:
        train: trains the same run each time; takes `save_dir`, `resume` and `report`.
    """
    __tracebackhide__ = True
    whole = train()
    with pytest.raises(Interrupted):
        train(save_dir=save_dir, report=interrupt_after(1))
    resumed = train(save_dir=save_dir, resume=True)
    assert_same_bits(whole, resumed, what="a run that was interrupted in its second epoch and resumed")


def _norm(tensors: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([tensor.norm() for tensor in tensors.values()]).norm())
