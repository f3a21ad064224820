"""Probes of the optimizer's settings: decay groups, learning rate, and what the arguments ask for."""

from __future__ import annotations

from typing import Any

from touchstone.auditing.finding import Finding, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.optimizer import GROUP, shown
from touchstone.auditing.reading.schedule import chooses_its_rate
from touchstone.auditing.subject import Subject


@probe(
    "decay-groups",
    group=GROUP,
    says="Weight decay acts on matrices, not on biases and norms.",
    loops=False,
)
def decay_groups(subject: Subject) -> Finding:
    """Look at the weight decay of biases and norms, which have one dimension, and of matrices.

    Fault: Weight decay acts on biases and norms, and on no matrix: the two groups are exchanged.

    Causes: The condition of the two list comprehensions is inverted.

    Remedy: Decay matrices only: `decayed = [p for p in model.parameters() if p.dim() > 1]`, and the others with
    weight_decay=0.

    Warning: Biases and norm weights are decayed. That is torch's default for one group; most recipes spare them. If
    you have a list of names such as 'LayerNorm.weight', it does not match this model's names.
    """
    copied = subject.quiet_model
    optimizer, _ = subject.need("optimizer")(copied)
    names = {id(each): (name, each.dim()) for name, each in copied.named_parameters() if each.requires_grad}
    decay = {
        names[id(each)]: float(group.get("weight_decay") or 0.0)
        for group in optimizer.param_groups
        for each in group["params"]
        if id(each) in names
    }
    if not any(decay.values()):
        return passed("there is no weight decay")
    vectors = [name for (name, dims), size in decay.items() if size and dims < 2]
    matrices = [name for (name, dims), size in decay.items() if size and dims > 1]
    spared = [name for (name, dims), size in decay.items() if not size and dims > 1]
    if vectors and spared and not matrices:
        return fail(
            "weight decay acts on biases and norms only, and on no matrix",
            cause=f"the two parameter groups are exchanged: {shown(vectors)} are decayed, {shown(spared)} are not",
            measured=len(vectors),
            expected=0,
        )
    if vectors:
        return warn(
            f"{len(vectors)} biases and norm weights are decayed",
            cause=f"weight decay pulls them to 0, which is usually not wanted: {shown(vectors)}. Put them into a group "
            "with weight_decay=0; a list of names to spare has to match the names of this model",
            measured=len(vectors),
            expected=0,
        )
    return passed(f"weight decay acts on {len(matrices)} matrices, and on no bias or norm")


@probe(
    "optimizer-as-set",
    group=GROUP,
    says="The optimizer and the schedule are those that the settings and the code ask for.",
    loops=False,
)
def optimizer_as_set(subject: Subject) -> Finding:
    """Compare the optimizer's learning rate and decay with the settings, and look for code that is never called.

    Fault: `create_optimizer_and_scheduler` is overridden, and nobody calls it. The Trainer's default optimizer and
    schedule are used instead of yours.

    Causes: transformers 5 calls `create_optimizer` and `create_scheduler` one by one.

    Remedy: Override these two methods, or pass `optimizers=(optimizer, scheduler)` to the Trainer.

    Warning: A learning rate, weight decay or warm-up in the arguments has no effect, because an optimizer or schedule
    is passed in. Or Adam's learning rate is above 0.01, where an exponent may be missing.
    """
    never = subject.extra.get("never called")
    if never:
        return fail(
            f"{never} is never called",
            cause="transformers 5 calls create_optimizer() and create_scheduler() one by one, so that the Trainer's "
            "default optimizer and schedule are used: override these two instead",
            measured=never,
        )
    optimizer, _ = subject.need("optimizer")(subject.quiet_model)
    if chooses_its_rate(optimizer):
        return passed(f"{type(optimizer).__name__} chooses its own learning rate")
    rates = sorted({float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups})
    decays = sorted({float(group.get("weight_decay") or 0.0) for group in optimizer.param_groups})
    chosen: dict[str, Any] = subject.extra.get("chosen settings", {})
    given: list[str] = subject.extra.get("given", [])
    ignored = []
    if "optimizer" in given:
        ignored += [
            f"{name} {chosen[name]:g} (the optimizer has {', '.join(f'{each:g}' for each in values)})"
            for name, values in (("learning_rate", rates), ("weight_decay", decays))
            if name in chosen and all(abs(each - chosen[name]) > 1e-9 for each in values)
        ]
    if "lr_scheduler" in given:
        ignored += [
            f"{name} {chosen[name]}" for name in ("warmup_steps", "warmup_ratio", "lr_scheduler_type") if name in chosen
        ]
    if ignored:
        return warn(
            f"settings without effect: {'; '.join(ignored)}",
            cause=f"{' and '.join(given)} passed to the Trainer replace what the arguments say: set the values there",
        )
    if "adam" in type(optimizer).__name__.lower() and rates[-1] > 1e-2:
        return warn(
            f"the learning rate is {rates[-1]:g}",
            cause=f"{type(optimizer).__name__} usually diverges above 0.01; is an exponent missing?",
            measured=rates[-1],
        )
    return passed(
        f"{type(optimizer).__name__}: learning rate {', '.join(f'{each:g}' for each in rates)}, "
        f"weight decay {', '.join(f'{each:g}' for each in decays)}"
    )
