"""A probe of the schedule: the learning rate from the first step of the run to the last."""

from __future__ import annotations

from itertools import pairwise

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.optimizer import GROUP
from touchstone.auditing.reading.schedule import Curve, follow
from touchstone.auditing.subject import Subject


@probe(
    "schedule-fits-the-run",
    group=GROUP,
    says="The learning-rate schedule is planned for the steps that the run takes.",
    loops=False,
)
def schedule_fits_the_run(subject: Subject) -> Finding:
    """Follow the schedule through the run, and look where it goes after it.

    Fault: The learning rate ends in the wrong place: it stays high, is 0 for a part of the run, never gets warm, is
    never stepped, or is negative.

    Causes: The schedule is planned for batches or rows and stepped once per optimizer step. Or it is planned for one
    epoch of several, an integer division gives 0, or scheduler.step() is missing.

    Remedy: Plan it for optimizer steps: `steps = math.ceil(len(loader) / accumulation) * epochs`, and step it once
    after each optimizer step. With `accelerator.prepare`, it is stepped for each process.

    Warning: The plan and the run differ, or the rate rises again at the end as a cosine does after its planned end.
    Fine if the run is cut short or restarts are meant.
    """
    steps = subject.settings.planned_steps
    if steps is None:
        raise NotChecked("the number of steps of the run is not known: set max_steps")
    optimizer, schedule = subject.need("optimizer")(subject.quiet_model)
    plans = _wrong_plans(subject, steps)
    ahead = [step for plan in plans.values() for step in (plan, int(0.95 * plan))]
    ahead += [steps * tenth // 10 for tenth in range(11, 80)]
    curve = follow(optimizer, schedule, steps, sorted({steps, *(step for step in ahead if step > steps)}))
    wrong = (
        _dead(curve, steps) or _never_warm(curve, steps) or _too_short(curve, steps) or _too_long(curve, steps, plans)
    )
    if wrong is not None:
        return wrong
    return passed(
        f"the learning rate begins at {curve.rates[0]:.3g}, is at most {curve.peak:.3g}, and ends at "
        f"{curve.rates[-1]:.3g} after {steps} steps",
        measured=[curve.rates[0], curve.peak, curve.rates[-1]],
    )


def _wrong_plans(subject: Subject, steps: int) -> dict[str, int]:
    """Return the numbers that people take for the number of steps by mistake, with a name for each."""
    settings = subject.settings
    accumulation = settings.accumulation or 1
    plans = {f"batches instead of steps (accumulation is {accumulation})": steps * accumulation}
    try:
        rows = len(subject.need("train"))
    except NotChecked:
        rows = 0
    if settings.epochs and settings.max_steps is None and rows:
        batches = -(-rows // subject.need("train").batch_size)
        plans[f"batches instead of steps (accumulation is {accumulation})"] = round(settings.epochs * batches)
        plans["rows instead of steps"] = round(settings.epochs * rows)
    return {name: plan for name, plan in plans.items() if plan > 1.05 * steps + 1}


def _dead(curve: Curve, steps: int) -> Finding | None:
    if any(rate < 0 for rate in curve.rates):
        first = next(index for index, rate in enumerate(curve.rates) if rate < 0)
        return fail(
            f"the learning rate is negative from step {first} of {steps}",
            cause="the schedule goes on falling behind its planned end, and training undoes itself: clamp it at 0",
            measured=min(curve.rates),
            expected=0,
        )
    if curve.peak > 0:
        return None
    why = (
        "the schedule multiplies it by 0 (an integer division?)"
        if curve.base
        else "the optimizer's own learning rate is 0"
    )
    return fail(
        f"the learning rate is 0 at every one of {steps} steps", cause=f"nothing is trained: {why}", measured=0.0
    )


def _never_warm(curve: Curve, steps: int) -> Finding | None:
    rates = curve.rates
    rising = len(rates) > 2 and all(after > before for before, after in pairwise(rates))
    if not rising or rates[-1] >= 0.95 * curve.base:
        return None
    slope = rates[1] - rates[0]
    length = f"about {curve.base / slope:.0f} steps" if slope else "longer"
    return fail(
        f"warm-up is longer than the run: the learning rate ends at {rates[-1]:.3g}, {rates[-1] / curve.base:.0%} of "
        "its full value",
        cause=f"the run takes {steps} steps and warm-up {length}: shorten it, or give it as a share of the steps",
        measured=rates[-1],
        expected=curve.base,
    )


def _too_short(curve: Curve, steps: int) -> Finding | None:
    if curve.crashed is not None:
        return fail(
            f"the schedule ends at step {curve.crashed}, but the run takes {steps}",
            cause="it raises an error there: plan it for the number of optimizer steps of the whole run",
            measured=curve.crashed,
            expected=steps,
        )
    rates = curve.rates
    idle = 0
    while idle < len(rates) and rates[-1 - idle] <= 1e-9 * curve.peak:
        idle += 1
    share = idle / len(rates)
    if idle >= 2 and share > 0.05:
        return fail(
            f"the learning rate is 0 in the last {share:.0%} of the run",
            cause=f"the schedule is planned for {round(steps * (1 - share))} steps, but the run takes {steps}, and "
            "nothing is trained behind its end: plan it for all epochs",
            measured=round(steps * (1 - share)),
            expected=steps,
        )
    warm = next(index for index, rate in enumerate(rates) if rate > 0.999 * curve.peak)
    lowest = min(range(warm, len(rates)), key=rates.__getitem__)
    if rates[lowest] < 1e-2 * curve.peak and rates[-1] > 0.1 * curve.peak:
        return warn(
            f"the learning rate falls to {rates[lowest]:.3g} and rises again to {rates[-1]:.3g}",
            cause=f"it is lowest after {lowest / len(rates):.0%} of the {steps} steps. A cosine that is planned for "
            "fewer steps than the run takes does that; nothing is wrong if restarts are meant",
        )
    return None


def _too_long(curve: Curve, steps: int, plans: dict[str, int]) -> Finding | None:
    low = 1e-6 * curve.peak
    last = curve.rates[-1]
    # In a short run the last step is still far above 0: what counts is the rate that would follow it.
    if last < 0.1 * curve.peak or abs(curve.beyond.get(steps, last)) <= low:
        return None
    for name, plan in plans.items():
        near = [curve.beyond.get(plan), curve.beyond.get(int(0.95 * plan))]
        if near[0] is not None and near[1] is not None and abs(near[0]) <= low < 1e3 * low < near[1]:
            return fail(
                f"the schedule is planned for {plan} steps, but the run takes {steps}",
                cause=f"it counts {name}: the learning rate is still {last / curve.peak:.0%} of its peak at the end of "
                "the run. Plan it for len(loader) / accumulation steps an epoch",
                measured=plan,
                expected=steps,
            )
    ends = [step for step, rate in sorted(curve.beyond.items()) if abs(rate) <= low]
    if ends and last < max(curve.rates):
        return warn(
            f"the run takes {steps} steps, but the schedule is planned for about {ends[0]}",
            cause=f"the learning rate is still {last / curve.peak:.0%} of its peak at the end of the run; nothing is "
            "wrong if the run is meant to be cut short",
            measured=ends[0],
            expected=steps,
        )
    return None
