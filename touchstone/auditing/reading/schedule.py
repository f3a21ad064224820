"""Follow a learning-rate schedule through a run without training."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from touchstone.auditing.finding import NotChecked

LIMIT = 20_000
"""Steps that are simulated at most, unless the schedule is a function of the step."""


@dataclass
class Curve:
    """The highest learning rate of all parameter groups, step by step.

    Args:
        base: the learning rate of the optimizer itself.
        rates: the rates of the run's steps.
        beyond: the rates after the run's end, by step, at the steps that were asked for.
        crashed: the schedule raised an error at this step, or None.
    """

    base: float
    rates: list[float]
    beyond: dict[int, float] = field(default_factory=dict)
    crashed: int | None = None

    @property
    def peak(self) -> float:
        """The highest rate of the run."""
        return max(self.rates)


def chooses_its_rate(optimizer: Any) -> bool:
    """Whether an optimizer computes its learning rate itself, as Adafactor does with relative steps."""
    return any(group.get("lr") is None or group.get("relative_step") for group in optimizer.param_groups)


def follow(optimizer: Any, schedule: Any, steps: int, beyond: Sequence[int] = ()) -> Curve:
    """Return the rates of a run of some steps, and those at later steps.

    Args:
        optimizer: a copy of the optimizer.
        schedule: a copy of the schedule.
        steps: the steps of the run.
        beyond: later steps to look at.

    Raises:
        NotChecked: the rates depend on a metric, or the run is too long to be simulated.
    """
    if chooses_its_rate(optimizer):
        raise NotChecked(f"{type(optimizer).__name__} chooses its own learning rate")
    base = max((float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups), default=0.0)
    from torch.optim.lr_scheduler import LambdaLR

    if schedule is None:
        return Curve(base, [base] * min(steps, 2))
    functions = getattr(schedule, "lr_lambdas", None)
    if functions and type(schedule).get_lr is LambdaLR.get_lr:
        bases = [float(each) for each in schedule.base_lrs]

        def rate(step: int) -> float:
            return max((each * float(f(step)) for each, f in zip(bases, functions, strict=True)), key=abs, default=0.0)

        chosen = range(steps) if steps <= LIMIT else [*range(0, steps, steps // 2000), steps - 1]
        return Curve(base, [rate(step) for step in chosen], {step: rate(step) for step in beyond})
    if "metrics" in inspect.signature(schedule.step).parameters:
        raise NotChecked("the learning rate depends on a metric")
    if steps > LIMIT:
        raise NotChecked(f"the schedule {type(schedule).__name__} cannot be followed for {steps} steps")
    wanted = [step for step in beyond if step <= LIMIT]
    rates: list[float] = []
    found: dict[int, float] = {}
    crashed = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer takes no step
        for step in range(max([steps, *(each + 1 for each in wanted)])):
            current = max((float(group["lr"]) for group in optimizer.param_groups), key=abs, default=0.0)
            if step < steps:
                rates.append(current)
            elif step in wanted:
                found[step] = current
            try:
                schedule.step()
            except ValueError:
                crashed = step + 1 if step + 1 < steps else None
                break
    return Curve(base, rates, found, crashed)
