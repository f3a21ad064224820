"""Probes of training loops: gradients between steps, clipping, and the optimizer's parameters."""

from __future__ import annotations

from collections import Counter
from typing import Any

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.observing.trace import Trace, Update
from touchstone.auditing.probe import in_loops, probe
from touchstone.auditing.probes.optimizer import left_out, optimizer_holds_the_model, shown
from touchstone.auditing.subject import IGNORED, Step, Subject

NOISE = 1e-6
"""A norm of left-over gradients below this part of the whole gradient is rounding."""


def trace_of(subject: Subject) -> Trace:
    trace: Trace = subject.need("trace")
    return trace


def short(where: str) -> str:
    return where.rsplit("/", 1)[-1]


# Gradients


@probe(
    "gradients-zeroed",
    group="loss and step",
    says="Gradients are zeroed between optimizer steps.",
    budget="fast",
    loops=True,
)
def gradients_zeroed(subject: Subject) -> Finding:
    """Look for gradients of the last step that are still there when backward is called for the next.

    Fault: Gradients of earlier steps are still there when the next begins. Each step adds to all steps before, as if
    with a strange momentum.

    Causes: `optimizer.zero_grad()` is missing, or is called for another optimizer or model.

    Remedy: Call `optimizer.zero_grad()` after every `optimizer.step()`.

    Warning: It happens before fewer than half of the steps. Look at the branch that skips zero_grad.
    """
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
    "gradients-kept",
    group="loss and step",
    says="Gradients are kept from backward until the optimizer step.",
    budget="fast",
    loops=True,
)
def gradients_kept(subject: Subject) -> Finding:
    """Look for calls of zero_grad between backward and the optimizer step.

    Fault: Gradients are zeroed between backward and the step. The step then trains on nothing, or on the last
    micro-batch only.

    Causes: `zero_grad()` stands between `backward()` and `step()`, or runs in every micro-step under accumulation.

    Remedy: Call `optimizer.zero_grad()` only after `optimizer.step()`.

    Warning: It happens in fewer than half of the steps, so that some batches are lost.
    """
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
    "clipping-after-accumulation",
    group="loss and step",
    says="Gradients are clipped once per optimizer step, when they are complete.",
    budget="fast",
    loops=True,
)
def clipping(subject: Subject) -> Finding:
    """Look for clipping before backward, after the step, or before accumulation ends.

    Fault: Gradients are clipped when they are not complete, when there are none, or before a GradScaler's factor is
    taken out. The limit does not limit the step.

    Causes: Clipping stands after `step()`, before `backward()`, or in every micro-step. With mixed precision,
    `unscale_` is missing.

    Remedy: Order: `backward`, and for a complete group `scaler.unscale_(optimizer)`, `clip_grad_norm_`, `step`,
    `zero_grad`. With Accelerate, clip within `if accelerator.sync_gradients:`.
    """
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


# Optimizer


@in_loops(optimizer_holds_the_model, budget="fast")
def optimizer_parameters(subject: Subject) -> Finding:
    """Look for an optimizer made of other parameters than those of the model that is called."""
    trace = trace_of(subject)
    foreign = sum(facts.foreign for facts in trace.optimizers)
    unmoved = set(trace.optimizers[0].unmoved).intersection(*(facts.unmoved for facts in trace.optimizers[1:]))
    names = [name for name in trace.optimizers[0].unmoved if name in unmoved]
    if foreign and names:
        which = "none of the parameters" if not any(trace.optimizers[0].groups) else f"not {shown(names)}"
        return fail(
            f"{len(names)} parameters of the model receive gradients but are never updated",
            cause=f"the optimizer holds {which} of the model that is called, but {foreign} parameters of another one: "
            "make the optimizer after the model was copied, resized or moved, from the parameters of that model",
            measured=len(names),
            expected=0,
        )
    if names:
        return left_out(subject.need("model"), names)
    return passed("every parameter that receives a gradient is in the optimizer")
