"""Probes of training loops: gradients between steps, clipping, the optimizer's parameters, and the schedule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from touchstone.auditing.adapters.loop import planned_steps
from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.observing.trace import Trace, Update
from touchstone.auditing.probe import probe
from touchstone.auditing.subject import IGNORED, Step, Subject

GROUP = "loop"
NOISE = 1e-6
"""A norm of left-over gradients below this part of the whole gradient is rounding."""
PLANNED = (0.8, 1.25)
"""A schedule may be planned for a few steps more or fewer than are taken, such as for rounded epochs."""


def trace_of(subject: Subject) -> Trace:
    trace: Trace = subject.need("trace")
    return trace


def short(where: str) -> str:
    return where.rsplit("/", 1)[-1]


# Gradients


@probe(
    "loop-gradients-zeroed",
    group=GROUP,
    says="Gradients are zeroed between optimizer steps.",
    budget="fast",
    loops=True,
)
def gradients_zeroed(subject: Subject) -> Finding:
    """Look for gradients of the last step that are still there when backward is called for the next."""
    trace = trace_of(subject)
    later = [update for update in trace.updates if update.leftover is not None and update.losses]
    if not later:
        raise NotChecked("only one optimizer step was seen: let the loop take two steps or more")
    stale = [update for update in later if (update.leftover or 0.0) > 0.0]
    if not stale:
        return passed(f"gradients were zero before each of {len(later)} steps")
    proof = _leftover_share(subject)
    if len(stale) < len(later) / 2:
        return warn(
            f"gradients of an earlier step were still there before {len(stale)} of {len(later)} steps",
            cause=f"they are added to those of the step at {short(stale[0].where)}: call optimizer.zero_grad() after "
            "every optimizer.step()",
            measured=len(stale),
            expected=0,
        )
    return fail(
        f"gradients are not zeroed: those of earlier steps were still there before {len(stale)} of {len(later)} steps",
        cause=f"before the backward call of the next step their norm was {stale[0].leftover:.3g}{proof}: "
        f"call optimizer.zero_grad() after optimizer.step() at {short(stale[0].where)}",
        measured=len(stale),
        expected=0,
    )


def _leftover_share(subject: Subject) -> str:
    """Return how much of an observed gradient its own losses do not explain, by computing it again."""
    import torch

    trace = trace_of(subject)
    for step in subject.steps:
        update = next((each for each in trace.updates[1:] if each.losses is step.losses), None)
        if update is None or not update.leftover or len(step.batches) != 1:
            continue
        loss = _mean_loss(step, subject)
        if loss is None or not loss.requires_grad:
            continue
        names, values = list(step.parameters), list(step.parameters.values())
        own = torch.autograd.grad(loss * (step.losses[0] / float(loss.detach())), values, allow_unused=True)
        whole = sum(float(each.pow(2).sum()) for each in step.gradients.values()) ** 0.5
        rest = sum(
            float((step.gradients[name] - each).pow(2).sum())
            for name, each in zip(names, own, strict=True)
            if each is not None and name in step.gradients
        )
        if rest**0.5 > NOISE * whole:
            return f"; {100 * rest**0.5 / whole:.0f}% of a step's gradient do not come from its own loss"
    return ""


def _mean_loss(step: Step, subject: Subject) -> Any:
    """Return the mean cross entropy over the labels of the first micro-batch, or None if it is no plain one."""
    from torch.nn.functional import cross_entropy

    labels, logits = step.batches[0].get("labels"), step.logits(0)
    if labels is None or logits is None or isinstance(logits, tuple) or labels.is_floating_point():
        return None
    if subject.task == "causal-lm" and not subject.aligned:
        logits, labels = logits[:, :-1], labels[:, 1:]
    if logits.shape[:-1] != labels.shape:
        return None
    return cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED)


@probe(
    "loop-gradients-kept",
    group=GROUP,
    says="Gradients are kept from backward until the optimizer step.",
    budget="fast",
    loops=True,
)
def gradients_kept(subject: Subject) -> Finding:
    """Look for calls of zero_grad between backward and the optimizer step."""
    trace = trace_of(subject)
    if len(trace.optimizers) > 1:
        raise NotChecked("there are several optimizers: their gradients are zeroed at different times")
    updates = [update for update in trace.updates if update.losses]
    lost = [update for update in updates if update.backwards_before_zero]
    if not lost:
        return passed(f"no gradient was zeroed before its step in {len(updates)} steps")
    count = Counter((update.backwards_before_zero, len(update.losses)) for update in lost).most_common(1)[0][0]
    if count[0] < count[1] and _same_batch(trace, lost[0]):
        raise NotChecked("backward is called several times on one batch, as in adversarial training or SAM")
    if len(lost) < len(updates) / 2:
        return warn(
            f"gradients were zeroed before their step in {len(lost)} of {len(updates)} steps",
            cause=f"{count[0]} of {count[1]} backward calls did not reach the step at {short(lost[0].where)}",
            measured=len(lost),
            expected=0,
        )
    what = "no gradient reaches the step" if count[0] == count[1] else f"only {count[1] - count[0]} of {count[1]} do"
    return fail(
        f"zero_grad is called after backward and before the optimizer step, in {len(lost)} of {len(updates)} steps",
        cause=f"the gradients of {count[0]} of {count[1]} backward calls are lost, so {what}: call "
        f"optimizer.zero_grad() only after optimizer.step() at {short(lost[0].where)}",
        measured=count[0],
        expected=0,
    )


def _same_batch(trace: Trace, update: Update) -> bool:
    """Tell whether all calls of the model that led to a step had the same inputs."""
    import torch

    inputs = [trace.forwards[index].batch.get("input_ids") for index in update.forwards]
    known = [each for each in inputs if isinstance(each, torch.Tensor)]
    return len(known) > 1 and all(torch.equal(each, known[0]) for each in known[1:])


@probe(
    "loop-last-group",
    group=GROUP,
    says="The last, incomplete group of batches of an epoch takes its own optimizer step.",
    loops=True,
)
def last_group(subject: Subject) -> Finding:
    """Look for batches at the end of an epoch that are trained on in the next epoch, or not at all."""
    trace = trace_of(subject)
    sizes = Counter(len(update.losses) for update in trace.updates)
    group = sizes.most_common(1)[0][0]
    if group < 2:
        return passed("every batch takes an optimizer step")
    ended = [index for index, each in enumerate(trace.passes) if each.training and each.ended]
    if not ended:
        raise NotChecked("no epoch came to its end: --budget deep lets longer epochs end")
    first = trace.passes[ended[0]]
    in_pass = [update for update in trace.updates if update.passing == ended[0]]
    rest = first.batches - sum(len(update.losses) for update in in_pass)
    if rest <= 0:
        return passed(f"all {first.batches} batches of an epoch reach an optimizer step of the same epoch")
    following = next((update for update in trace.updates if update.passing not in (None, *ended[:1])), None)
    carried = following is not None and len(following.losses) > group
    fate = "are added to the first step of the next epoch" if carried else "reach no step of their epoch"
    return warn(
        f"the last {rest} of {first.batches} batches of an epoch {fate}",
        cause=f"{first.batches} batches are no multiple of {group}: take a step at the last batch of an epoch too, "
        "with its loss divided by the number of batches in the group",
        measured=rest,
        expected=0,
    )


@probe(
    "loop-clipping",
    group=GROUP,
    says="Gradients are clipped once per optimizer step, when they are complete.",
    budget="fast",
    loops=True,
)
def clipping(subject: Subject) -> Finding:
    """Look for clipping before backward, after the step, or before accumulation ends."""
    trace = trace_of(subject)
    pairs = [(update, clip) for update in trace.updates for clip in update.clips]
    if not pairs:
        raise NotChecked("gradients are not clipped")
    scaled = [clip for _, clip in pairs if clip.scaled]
    if scaled:
        return fail(
            "gradients are clipped before they are unscaled",
            cause=f"at {short(scaled[0].where)} they still have the GradScaler's factor of {pairs[0][0].scale:g}, so "
            f"that a limit of {scaled[0].limit:g} acts as {scaled[0].limit / pairs[0][0].scale:.3g}: call "
            "scaler.unscale_(optimizer) before clipping",
            measured=len(scaled),
            expected=0,
        )
    idle = [clip for _, clip in pairs if clip.backwards == 0]
    early = [
        (update, clip)
        for update, clip in pairs
        if 0 < clip.backwards < len(update.losses) and clip.norm is not None and clip.norm > clip.limit
    ]
    if len(idle) == len(pairs):
        clip = idle[0]
        return fail(
            "gradients are clipped when there are none",
            cause=f"clipping at {short(clip.where)} comes after the optimizer step, or before backward, so it limits "
            f"no step: call it between backward and optimizer.step() at {short(trace.updates[0].where)}",
            measured=0,
            expected=len(trace.updates),
        )
    if early:
        update, clip = early[0]
        return fail(
            f"gradients are clipped before they are complete, after {clip.backwards} of {len(update.losses)} "
            "backward calls",
            cause=f"clipping at {short(clip.where)} cut a partial sum of norm {clip.norm:.3g} to {clip.limit:g}, so "
            "the batches of a step have different weights: clip only before the optimizer step (with Accelerate: "
            "if accelerator.sync_gradients)",
            measured=sum(0 < each.backwards < len(update.losses) for each in update.clips),
            expected=0,
        )
    return passed(f"gradients are clipped at {pairs[0][1].limit:g} when they are complete")


# Optimizer and schedule


@probe(
    "loop-optimizer-parameters",
    group=GROUP,
    says="The optimizer holds the parameters of the model that is trained.",
    budget="fast",
    loops=True,
)
def optimizer_parameters(subject: Subject) -> Finding:
    """Look for an optimizer made of other parameters than those of the model that is called."""
    trace = trace_of(subject)
    foreign = sum(facts.foreign for facts in trace.optimizers)
    unmoved = set(trace.optimizers[0].unmoved).intersection(*(facts.unmoved for facts in trace.optimizers[1:]))
    names = [name for name in trace.optimizers[0].unmoved if name in unmoved]
    if foreign and names:
        which = "none of the parameters" if not any(trace.optimizers[0].groups) else f"not {_few(names)}"
        return fail(
            f"{len(names)} parameters of the model receive gradients but are never updated",
            cause=f"the optimizer holds {which} of the model that is called, but {foreign} parameters of another one: "
            "make the optimizer after the model was copied, resized or moved, from the parameters of that model",
            measured=len(names),
            expected=0,
        )
    if names:
        return warn(
            f"{len(names)} parameters receive gradients but are not in the optimizer: {_few(names)}",
            cause="if they are meant to stay as they are, set requires_grad_(False): their gradients cost time and "
            "enter the norm that is clipped",
            measured=len(names),
            expected=0,
        )
    return passed("every parameter that receives a gradient is in the optimizer")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@probe(
    "loop-schedule",
    group=GROUP,
    says="The learning rate schedule is stepped as often as it is planned for.",
    budget="fast",
    loops=True,
)
def schedule(subject: Subject) -> Finding:
    """Compare the steps that a schedule is planned for with the steps it takes in the whole run."""
    trace = trace_of(subject)
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
