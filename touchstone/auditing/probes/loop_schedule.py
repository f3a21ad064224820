"""The probe of the schedule in training loops."""

from __future__ import annotations

from collections import Counter
from typing import Any

from touchstone.auditing.adapters.loop import planned_steps
from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.observing.trace import Trace
from touchstone.auditing.probe import in_loops
from touchstone.auditing.probes.loop import short, trace_of
from touchstone.auditing.probes.schedule import schedule_fits_the_run
from touchstone.auditing.reading.schedule import chooses_its_rate
from touchstone.auditing.subject import Subject

PLANNED = (0.8, 1.25)
"""A schedule may be planned for a few steps more or fewer than are taken, such as for rounded epochs."""


@in_loops(schedule_fits_the_run, budget="fast")
def schedule(subject: Subject) -> Finding:
    """Compare the steps that a schedule is planned for with the steps it takes in the whole run."""
    trace = trace_of(subject)
    dead = _dead(trace)
    if dead is not None:
        return dead
    if not trace.schedules:
        raise NotChecked("there is no schedule of torch.optim.lr_scheduler")
    stepped = sum(update.scheduler_steps for update in trace.updates) + trace.early_scheduler_steps
    planned, _ = planned_steps(trace)
    steps = _steps_in_run(trace)
    if not stepped:
        return _unstepped(trace, planned, steps)
    if planned is None:
        raise NotChecked("the schedule does not tell how many steps it is planned for")
    if steps is None:
        raise NotChecked("the number of steps of the run cannot be read from the loops around the optimizer step")
    if len(trace.updates) < 2:
        raise NotChecked("only one optimizer step was seen: how often the schedule is stepped is not known")
    per_step = Counter(update.scheduler_steps for update in trace.updates[:-1]).most_common(1)[0][0]
    taken = [per_step * each for each in steps] if per_step else [trace.epochs or 0] * 2
    rate = f"{per_step} times per optimizer step" if per_step != 1 else "once per optimizer step"
    if not per_step:
        rate = "once per epoch"
    low, high = planned * PLANNED[0], planned * PLANNED[1]
    text = str(taken[0]) if taken[0] == taken[1] else f"{taken[0]} to {taken[1]}"
    if taken[1] >= low and taken[0] <= high:
        return passed(f"the schedule is planned for {planned} steps and takes {text}", measured=planned)
    if trace.breaks and taken[0] > high:
        raise NotChecked(f"the loop may end early: it has a break, and would take {text} steps of {planned} planned")
    make = warn if any(hasattr(each, "T_max") for each in trace.schedules) else fail  # a cosine may be meant to return
    return make(
        f"the schedule is planned for {planned} steps but takes {text}",
        cause=f"it is stepped {rate}, and the run takes {_span(steps)} optimizer steps"
        f"{_ends_at(trace, planned, taken[1])}: plan it for {text} steps",
        measured=planned,
        expected=taken[1],
    )


def _dead(trace: Trace) -> Finding | None:
    """Return a fault if the learning rate is 0 in every group, and no schedule can raise it."""
    groups = [group for facts in trace.optimizers for group in facts.optimizer.param_groups]
    if any(chooses_its_rate(facts.optimizer) for facts in trace.optimizers):
        return None
    if any(rate for update in trace.updates for rate in update.rates):
        return None
    if any(float(group.get("initial_lr", group["lr"])) for group in groups):
        return None  # warm-up begins at 0
    if not all(_multiplies(each) for each in trace.schedules):
        return None
    return fail(
        f"the learning rate is 0 in each of {len(trace.updates)} steps",
        cause=f"nothing is trained: the optimizer that steps at {short(trace.updates[0].where)} was made with a "
        "learning rate of 0" + (", which the schedule multiplies" if trace.schedules else ""),
        measured=0.0,
    )


def _multiplies(schedule: Any) -> bool:
    """Whether a schedule can only multiply the optimizer's own learning rate, so that 0 stays 0."""
    from torch.optim import lr_scheduler

    return isinstance(schedule, (lr_scheduler.LambdaLR, lr_scheduler.StepLR, lr_scheduler.LinearLR))


def _unstepped(trace: Trace, planned: int | None, steps: tuple[int, int] | None) -> Finding:
    """Judge a schedule that was made and not stepped. It may still be stepped at the end of an epoch."""
    turned = len({update.passing for update in trace.updates}) > 1
    per_epoch = trace.epochs is None or steps is None or planned is None or planned <= 2 * trace.epochs < steps[0]
    if not turned and per_epoch:
        raise NotChecked("the schedule was not stepped yet: --budget deep lets longer epochs end")
    return fail(
        f"the schedule is never stepped: the learning rate stays at {trace.updates[-1].rates[0]:.3g}",
        cause=f"{len(trace.updates)} optimizer steps were taken without scheduler.step(): call it after each "
        f"optimizer.step() at {short(trace.updates[0].where)}",
        measured=0,
        expected=len(trace.updates),
    )


def _span(steps: tuple[int, int]) -> str:
    return str(steps[0]) if steps[0] == steps[1] else f"{steps[0]} to {steps[1]}"


def _ends_at(trace: Trace, planned: int, taken: int) -> str:
    """Return a phrase about the learning rate at the end of the run, if the schedule tells it."""
    for each in trace.schedules:
        for function, base in zip(getattr(each, "lr_lambdas", ()), getattr(each, "base_lrs", ()), strict=False):
            if taken < planned:
                return f", so that the learning rate ends at {100 * function(taken):.0f}% of its peak ({base:.3g})"
            return f", so that the learning rate is {base * function(taken):.3g} for the last {taken - planned} steps"
    return ""


def _steps_in_run(trace: Trace) -> tuple[int, int] | None:
    """Return the least and the largest number of optimizer steps of the whole run."""
    if trace.max_steps is not None:
        return trace.max_steps, trace.max_steps
    training = trace.training_passes()
    if not training or trace.epochs is None:
        return None
    try:
        batches = len(trace.loaders[training[0].loader])
    except TypeError:
        return None
    group = Counter(len(update.losses) for update in trace.updates).most_common(1)[0][0] or 1
    return batches // group * trace.epochs, -(-batches // group) * trace.epochs
