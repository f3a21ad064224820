"""Probes of training loops: gradients between steps, clipping, the schedule, modes, and the metric's arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.loop import planned_steps
from touchstone.auditing.probe import probe
from touchstone.auditing.subject import IGNORED, Step, Subject, ints
from touchstone.auditing.trace import Forward, MetricCall, Trace

GROUP = "loop"
NOISE = 1e-6
"""A norm of left-over gradients below this part of the whole gradient is rounding."""
PLANNED = (0.8, 1.25)
"""A schedule may be planned for a few steps more or fewer than are taken, such as for rounded epochs."""
FOUND = 0.9
"""Share of the metric's predictions that are gold labels if the two arguments are exchanged."""


def _trace(subject: Subject) -> Trace:
    trace: Trace = subject.need("trace")
    return trace


def _short(where: str) -> str:
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
    trace = _trace(subject)
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
            cause=f"they are added to those of the step at {_short(stale[0].where)}: call optimizer.zero_grad() after "
            "every optimizer.step()",
            measured=len(stale),
            expected=0,
        )
    return fail(
        f"gradients are not zeroed: those of earlier steps were still there before {len(stale)} of {len(later)} steps",
        cause=f"before the backward call of the next step their norm was {stale[0].leftover:.3g}{proof}: "
        f"call optimizer.zero_grad() after optimizer.step() at {_short(stale[0].where)}",
        measured=len(stale),
        expected=0,
    )


def _leftover_share(subject: Subject) -> str:
    """Return how much of an observed gradient its own losses do not explain, by computing it again."""
    import torch

    trace = _trace(subject)
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
    trace = _trace(subject)
    if len(trace.optimizers) > 1:
        raise NotChecked("there are several optimizers: their gradients are zeroed at different times")
    updates = [update for update in trace.updates if update.losses]
    lost = [update for update in updates if update.backwards_before_zero]
    if not lost:
        return passed(f"no gradient was zeroed before its step in {len(updates)} steps")
    count = Counter((update.backwards_before_zero, len(update.losses)) for update in lost).most_common(1)[0][0]
    if len(lost) < len(updates) / 2:
        return warn(
            f"gradients were zeroed before their step in {len(lost)} of {len(updates)} steps",
            cause=f"{count[0]} of {count[1]} backward calls did not reach the step at {_short(lost[0].where)}",
            measured=len(lost),
            expected=0,
        )
    what = "no gradient reaches the step" if count[0] == count[1] else f"only {count[1] - count[0]} of {count[1]} do"
    return fail(
        f"zero_grad is called after backward and before the optimizer step, in {len(lost)} of {len(updates)} steps",
        cause=f"the gradients of {count[0]} of {count[1]} backward calls are lost, so {what}: call "
        f"optimizer.zero_grad() only after optimizer.step() at {_short(lost[0].where)}",
        measured=count[0],
        expected=0,
    )


@probe(
    "loop-last-group",
    group=GROUP,
    says="The last, incomplete group of batches of an epoch takes its own optimizer step.",
    loops=True,
)
def last_group(subject: Subject) -> Finding:
    """Look for batches at the end of an epoch that are trained on in the next epoch, or not at all."""
    trace = _trace(subject)
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
    trace = _trace(subject)
    pairs = [(update, clip) for update in trace.updates for clip in update.clips]
    if not pairs:
        raise NotChecked("gradients are not clipped")
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
            cause=f"clipping at {_short(clip.where)} comes after the optimizer step, or before backward, so it limits "
            f"no step: call it between backward and optimizer.step() at {_short(trace.updates[0].where)}",
            measured=0,
            expected=len(trace.updates),
        )
    if early:
        update, clip = early[0]
        return fail(
            f"gradients are clipped before they are complete, after {clip.backwards} of {len(update.losses)} "
            "backward calls",
            cause=f"clipping at {_short(clip.where)} cut a partial sum of norm {clip.norm:.3g} to {clip.limit:g}, so "
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
    trace = _trace(subject)
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
    trace = _trace(subject)
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
    return fail(
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
        f"optimizer.step() at {_short(trace.updates[0].where)}",
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


# Modes


def _dropout(subject: Subject) -> float:
    """Return the largest dropout rate of the model's modules; some models keep the rate without a module."""
    rates = [
        getattr(module, name, 0.0)
        for module in subject.need("model").modules()
        for name in (
            "p",
            "dropout",
            "dropout_p",
            "dropout_prob",
            "attention_dropout",
            "activation_dropout",
            "layerdrop",
        )
    ]
    return max((float(rate) for rate in rates if isinstance(rate, float)), default=0.0)


@probe(
    "loop-training-mode",
    group=GROUP,
    says="The model is in training mode in every training step, also after an evaluation.",
    budget="fast",
    loops=True,
)
def training_mode(subject: Subject) -> Finding:
    """Look for training steps with dropout switched off."""
    trace = _trace(subject)
    trained = {index for update in trace.updates for index in update.forwards}
    calls = [trace.forwards[index] for index in sorted(trained)]
    rate = _dropout(subject)
    quiet = [call for call in calls if not call.training]
    if not calls:
        raise NotChecked("the calls of the model that led to a step were not seen")
    if not quiet:
        return passed(f"the model was in training mode in {len(calls)} training calls")
    if rate == 0.0:
        return passed("the model was in evaluation mode in training, but has no dropout")
    where = _short(quiet[0].where)
    if any(call.training for call in calls):
        return fail(
            f"from optimizer step {quiet[0].step + 1} on, the model is trained in evaluation mode",
            cause=f"dropout ({rate:g}) is off at {where}: an evaluation called model.eval(), and nothing "
            "calls model.train() before training goes on",
            measured=len(quiet),
            expected=0,
        )
    return fail(
        "the model is trained in evaluation mode",
        cause=f"dropout ({rate:g}) is off at {where}; from_pretrained returns a model in evaluation mode: "
        "call model.train() before the loop",
        measured=len(quiet),
        expected=0,
    )


@probe(
    "loop-evaluation-mode",
    group=GROUP,
    says="The model is in evaluation mode in evaluations.",
    budget="fast",
    loops=True,
)
def evaluation_mode(subject: Subject) -> Finding:
    """Look for evaluations with dropout switched on."""
    trace = _trace(subject)
    calls = list(_evaluation_calls(trace))
    if not calls:
        raise NotChecked("no evaluation was seen: --budget deep lets longer epochs end")
    rate = _dropout(subject)
    noisy = [call for call in calls if call.training]
    if not noisy:
        return passed(f"the model was in evaluation mode in {len(calls)} evaluation calls")
    if rate == 0.0:
        return passed("the model was in training mode in the evaluation, but has no dropout")
    what = "generates" if noisy[0].generating else "is evaluated"
    return fail(
        f"the model {what} in training mode, in {len(noisy)} of {len(calls)} evaluation calls",
        cause=f"dropout ({rate:g}) is on at {_short(noisy[0].where)}, so that scores are too low and differ each time: "
        "call model.eval() before the evaluation, and model.train() after it",
        measured=len(noisy),
        expected=0,
    )


def _evaluation_calls(trace: Trace) -> Iterator[Forward]:
    """Yield the calls without gradients whose data are not those of a training step."""
    previous: Forward | None = None
    for call in trace.forwards:
        if not call.grad:
            if call.passing is not None:
                if not trace.passes[call.passing].training or call.generating:
                    yield call
            elif previous is not None and not previous.grad:
                yield call  # two calls in a row: not the frozen half of a training step
        previous = call


# The metric


@probe(
    "loop-metric-arguments",
    group=GROUP,
    says="The metric is given predictions as predictions and labels as references.",
    loops=True,
)
def metric_arguments(subject: Subject) -> Finding:
    """Look for the labels of the data in the metric's predictions."""
    trace = _trace(subject)
    calls = [call for call in trace.metrics if call.predictions is not None and call.references is not None]
    if not calls:
        raise NotChecked("no call of a known metric was seen (evaluate, seqeval, sacrebleu, scikit-learn)")
    gold = _gold(subject)
    if not gold:
        raise NotChecked("the labels of the evaluation data are not known")
    for call in calls:
        predictions, references = (_sequences(each) for each in (call.predictions, call.references))
        if not predictions or not references:
            continue
        wrong, right = (_share(each, gold) for each in (predictions, references))
        if wrong >= FOUND and right < FOUND and wrong - right > 0.2:
            return fail(
                f"predictions and references are exchanged in the call of {call.name}",
                cause=f"{100 * wrong:.0f}% of its predictions are labels of the data, and "
                f"{100 * right:.0f}% of its references, so that precision and recall change places: exchange the two at "
                f"{_short(call.where)} or where they are unpacked (course#641)",
                measured=wrong,
                expected=0.0,
                example=_exchanged(call, predictions, references),
            )
    return passed(f"references are labels of the evaluation data in {len(calls)} calls of a metric")


def _exchanged(call: MetricCall, predictions: list[Any], references: list[Any]) -> Example:
    rows = [(_cut(one), _cut(other)) for one, other in zip(predictions, references, strict=False) if one != other][:3]
    return Example(
        ("given as predictions", "given as references"), rows, caption=f"{call.name} at {_short(call.where)}"
    )


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else " ".join(map(str, value))
    return text if len(text) <= 120 else f"{text[:117]}..."


def _share(values: list[Any], gold: set[Any]) -> float:
    distinct = {value for value in values if len(value) > 1}
    return sum(value in gold for value in distinct) / len(distinct) if distinct else 0.0


def _sequences(values: Any) -> list[Any]:
    """Return a metric's argument as texts, or as tuples of labels; references may be in lists of one."""
    try:
        items = list(values)
    except TypeError:
        return []
    if len(items) == 1 and isinstance(items[0], (list, tuple)) and any(" " in str(each) for each in items[0]):
        items = list(items[0])  # sacrebleu takes lists of references
    found: list[Any] = []
    for item in items:
        if isinstance(item, str):
            found.append(item.strip())
        elif isinstance(item, (list, tuple)) and len(item) == 1 and isinstance(item[0], str) and " " in item[0]:
            found.append(item[0].strip())
        elif isinstance(item, (list, tuple)) or hasattr(item, "tolist"):
            row = item.tolist() if hasattr(item, "tolist") else item
            if not isinstance(row, (list, tuple)):
                return []
            found.append(tuple(each for each in row if each != IGNORED))
    return found


def _gold(subject: Subject) -> set[Any]:
    """Return the label sequences of the evaluation data: as ids, as names, and as decoded texts."""
    found: set[Any] = set()
    for labels in _label_rows(subject):
        kept = tuple(label for label in labels if label != IGNORED)
        if subject.task == "token-classification":
            found |= {kept, tuple(subject.label_text(label) for label in kept)}
        elif subject.tokenizer is not None and subject.task in ("translation", "summarization"):
            found.add(subject.tokenizer.decode(list(kept), skip_special_tokens=True).strip())
    return found


def _label_rows(subject: Subject) -> Iterator[list[int]]:
    evaluation = subject.need("evaluation")
    for batch in evaluation.observed:
        if "labels" in batch and getattr(batch["labels"], "ndim", 0) == 2:
            yield from (ints(row) for row in batch["labels"])
    try:
        rows = evaluation.rows(400)
    except NotChecked:
        return
    for row in rows:
        if "labels" in row:
            yield ints(row["labels"])
