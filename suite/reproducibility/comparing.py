"""Two runs side by side: what must be the same, and where it first is not."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from touchstone.engines.training import TrainingRun


def assert_same_bits(first: TrainingRun, second: TrainingRun, *, what: str) -> None:
    """Losses, scores and weights are equal to the last bit."""
    __tracebackhide__ = True
    for one, other in zip(first.trajectory, second.trajectory, strict=True):
        assert one.loss == other.loss, f"{what}: the loss of step {one.step} was {one.loss!r}, then {other.loss!r}"
    for before, after in zip(first.evaluations, second.evaluations, strict=True):
        for score, again in zip(before.scores, after.scores, strict=True):
            assert score == again, f"{what}: {score.name} after epoch {before.epoch:g} was {score}, then {again}"
    expected, got = weights(first), weights(second)
    for name in expected:
        different = (expected[name] != got[name]).sum().item()
        assert not different, f"{what}: {different} of {expected[name].numel()} weights of {name} differ after training"


def assert_close_losses(first: TrainingRun, second: TrainingRun, *, within: float, what: str) -> None:
    """No step's loss differs by more than `within` nat."""
    __tracebackhide__ = True
    for one, other in zip(first.trajectory, second.trajectory, strict=True):
        difference = abs(one.loss - other.loss)
        assert difference <= within, (
            f"{what}: the loss of step {one.step} was {one.loss!r}, then {other.loss!r}: "
            f"{difference:.2g} apart, rounding explains {within:g}"
        )


def assert_same_update(runs: Sequence[TrainingRun], *, within: float, what: Sequence[str]) -> None:
    """All runs ended with the weights of the first: no further from it than `within` times the weights' own norm."""
    __tracebackhide__ = True
    expected = weights(runs[0])
    norm = _norm(expected)
    for run, name in zip(runs[1:], what[1:], strict=True):
        got = weights(run)
        apart = _norm({key: got[key] - value for key, value in expected.items()})
        assert apart <= within * norm, (
            f"{name} ended with other weights than {what[0]}: {apart:.3g} apart, with a norm of {norm:.3g}; "
            f"rounding explains {within * norm:.2g}"
        )


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    assert run.model is not None
    return {name: value.detach().float().cpu() for name, value in run.model.state_dict().items()}


def _norm(tensors: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([tensor.norm() for tensor in tensors.values()]).norm())
