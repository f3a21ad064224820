"""Probes of training loops with models of one's own: what the loss is given, and where its targets stand."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.observing.calls import Call, logits_of
from touchstone.auditing.observing.losses import REGRESSIONS
from touchstone.auditing.observing.trace import Forward, LossCall
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.loop import short, trace_of
from touchstone.auditing.probes.shift import labels_shifted_once
from touchstone.auditing.reading.places import Shift, padded, padding_id, shift_of
from touchstone.auditing.subject import IGNORED, UNKNOWN, Subject, quiet

if TYPE_CHECKING:
    from torch import Tensor, nn

MOVED = 1e-4
"""A logit that changes by less of their spread is moved by rounding."""
TRIALS = 3
"""Ids that are changed, one at a time."""
SEEDS = 3
"""Random states under which an id is changed: teacher forcing may be drawn by chance."""
PULLED = 1e-6
"""Share of the squared gradient at padding that is more than rounding."""


# What the loss is given


@probe(
    "loss-inputs-fit",
    group="loss and step",
    says="A loss on logits is not given probabilities, and predictions have the shape of their targets.",
    budget="fast",
    loops=True,
)
def loss_inputs_fit(subject: Subject) -> Finding:
    """Look at how the input of each loss was made: by softmax, log-softmax or sigmoid, or by none of them.

    Fault: A softmax or a sigmoid stands before a loss that has one of its own, nll_loss is given no logarithms, or
    predictions and targets of a regression have shapes that spread over each other. The loss falls all the same, to the
    wrong place.

    Causes: The model ends in a softmax as for inference, NLLLoss and CrossEntropyLoss are mixed up, or a head returns
    `(rows, 1)` for targets of the shape `(rows,)`.

    Remedy: Give `cross_entropy` and `binary_cross_entropy_with_logits` the logits, `nll_loss` the output of
    `log_softmax`, and squeeze predictions to the shape of their targets.
    """
    forwards = [forward for forward in trace_of(subject).forwards if forward.grad]
    calls = [call for forward in forwards for call in (*forward.losses, *forward.other_losses)]
    if not calls:
        raise NotChecked("no call of a loss of torch.nn.functional was seen")
    for call in calls:
        found = _spread(call) if call.function in REGRESSIONS else _squashed_twice(call)
        if found is not None:
            return found
    return passed(f"{calls[0].function} is given what it expects")


def _spread(call: LossCall) -> Finding | None:
    """Return a fault if predictions and targets of a regression have other shapes, so that each meets each."""
    shape, target = call.shape, tuple(call.target.shape)
    if shape == target or math.prod(shape) < 2 or math.prod(target) < 2 or call.reduction == "none":
        return None
    try:
        both = np.broadcast_shapes(shape, target)
    except ValueError:
        return None  # the script fails by itself
    if math.prod(both) <= max(math.prod(shape), math.prod(target)):
        return None
    return fail(
        f"predictions of shape {shape} are compared with targets of shape {target}",
        cause=f"{call.function} at {short(call.where)} spreads both to {both}, so that every prediction is compared "
        "with the targets of all rows, and the model learns their mean: bring both to one shape (squeeze(-1))",
        measured=math.prod(both),
        expected=max(math.prod(shape), math.prod(target)),
    )


def _squashed_twice(call: LossCall) -> Finding | None:
    where = short(call.where)
    if call.function == "cross_entropy" and call.squashed == "softmax" and not call.target.is_floating_point():
        classes = call.shape[1]
        return fail(
            "the loss applies a softmax to probabilities: softmax twice",
            cause=f"cross_entropy at {where} is given the output of a softmax and has one of its own, so the loss of a "
            f"right and sure answer is still {_best_loss(classes):.3g} and gradients are small: give it the logits",
            measured="softmax",
            expected="logits",
        )
    if call.function == "nll_loss" and call.squashed == "softmax":
        return fail(
            "nll_loss is given probabilities, not their logarithms",
            cause=f"nll_loss at {where} is given the output of a softmax: the loss is -p instead of -log p. Use "
            "log_softmax, or cross_entropy with the logits",
            measured="softmax",
            expected="log-softmax",
        )
    if call.function == "nll_loss" and not call.squashed and call.given is not None and call.given.dim() == 2:
        total = call.given.float().logsumexp(-1)
        if bool((total.abs() > 0.1).any()) and bool((call.given > 0).any()):
            return fail(
                "nll_loss is given logits, not logarithms of probabilities",
                cause=f"the input of nll_loss at {where} reaches {float(call.given.max()):.3g}, and its exponentials "
                "do not sum to 1: the loss has no lower bound. Use cross_entropy, or log_softmax before",
                measured=float(call.given.max()),
                expected=0.0,
            )
    if call.function == "binary_cross_entropy_with_logits" and call.squashed == "sigmoid":
        return fail(
            "the loss applies a sigmoid to probabilities: sigmoid twice",
            cause=f"binary_cross_entropy_with_logits at {where} is given the output of a sigmoid and has one of its "
            "own: give it the logits",
            measured="sigmoid",
            expected="logits",
        )
    return None


def _best_loss(classes: int) -> float:
    """Return the cross-entropy of a one-hot distribution that is taken for logits."""
    return math.log(math.e + classes - 1) - 1


# Targets among the inputs


@dataclass(frozen=True)
class _Seen:
    """An argument of a call that has the places of its logits.

    Args:
        call: the call, to repeat it.
        forward: the same call as a trace has it.
        name: the argument's name.
        ids: its value.
        shift: how the targets are moved against it, or None.
    """

    call: Call
    forward: Forward
    name: str
    ids: Tensor
    shift: Shift | None


def _where(seen: _Seen) -> str:
    return short(seen.forward.losses[0].where if seen.forward.losses else seen.forward.where)


def _is_ids(value: Any) -> bool:
    """Tell whether a value is a table of ids, and no mask."""
    return getattr(value, "ndim", 0) == 2 and not value.is_floating_point() and len(set(value.flatten().tolist())) > 2


def _seen(subject: Subject) -> Iterator[_Seen]:
    """Yield the arguments of observed calls whose shape is that of the targets."""
    calls: list[Call] = subject.extra["calls"]
    for forward, call in zip(trace_of(subject).forwards, calls, strict=True):
        if forward.targets is None or not forward.grad or len(call.pulls) != 1:
            continue
        for name, ids in forward.batch.items():
            if name != "labels" and _is_ids(ids):
                if forward.targets.dim() == 1 and forward.targets.numel() == ids.numel():
                    yield _Seen(call, forward, name, ids, shift_of(ids, forward.targets.view(ids.shape)))
                elif ids.shape == forward.targets.shape:
                    yield _Seen(call, forward, name, ids, shift_of(ids, forward.targets))


@probe(
    "targets-not-seen",
    group="loss and step",
    says="The logits at a place do not depend on the token that they must predict.",
    tasks=("causal-lm", UNKNOWN),
    loops=True,
)
def targets_not_seen(subject: Subject) -> Finding:
    """Where targets are the ids of an argument, change one id of it, and look which logits move.

    Fault: The logits at a place depend on the token that they must predict, or on no token after the one before it, or
    targets are flattened along another axis than the logits. The model learns to copy, or to predict something else.

    Causes: Input and target of a decoder are not moved against each other, the causal mask is missing, teacher forcing
    hands out the next word, or one of two tensors was transposed.

    Remedy: Give the decoder `target[:-1]`, score it against `target[1:]`, use a causal mask, and flatten both alike.
    """
    if _is_judged(subject):
        raise NotChecked("labels-shifted-once looks at it")
    looked = list(_seen(subject))
    found = [each for each in looked if each.shift is not None]
    if not found:
        turned = next((each for each in looked if shift_of(each.ids, _turned(each)) is not None), None)
        if turned is not None:
            return _other_order(turned, "the targets are the next ids of the same sequence")
        raise NotChecked("no argument of the model holds the targets of its loss")
    seen = next(each for each in reversed(found) if each.forward is found[0].forward)  # a decoder's ids come last
    assert seen.shift is not None
    by, name, where = seen.shift.by, seen.name, _where(seen)
    moved = _moved(subject, seen, by)
    decoded = next(key for key, value in seen.forward.batch.items() if _is_ids(value)) != name
    if by < 1 and moved.target and not moved.before:
        return fail(
            "every place must predict a token that it is given",
            cause=f"the targets at {where} are {name}{_PLACES[by]}, and the logits at a place depend on the token that "
            f"is their target: give the model {name} without its last token, and score it against {name} without its "
            "first",
            measured=by,
            expected=1,
        )
    if by == 1 and moved.target and decoded:  # an encoder, which comes first, may see everything
        return fail(
            "the model sees the token that it must predict",
            cause=f"the targets at {where} are {name}{_PLACES[by]}, and the logits at a place depend on {name} at the "
            "next place: hide later tokens by a causal mask (True or -inf above the diagonal)",
            measured="the next token is seen",
            expected="hidden",
        )
    if by == 2 and moved.after and not moved.between and len(seen.forward.losses) < 2:
        return fail(
            "every place must predict the token after the next",
            cause=f"the targets at {where} are {name}{_PLACES[by]}, and the logits do not depend on the token between: "
            "it is shifted twice. Shift once",
            measured=2,
            expected=1,
        )
    return passed(f"the targets are {name}{_PLACES[by]}, and the logits do not depend on them")


_PLACES = {-1: ", one place before", 0: ", at the same place", 1: ", one place later", 2: ", two places later"}


def _is_judged(subject: Subject) -> bool:
    try:
        labels_shifted_once(subject)
    except NotChecked:
        return False
    return True


@dataclass
class _Moved:
    """Which logits change when one id changes.

    Args:
        target: those whose target the id is.
        before: some before these.
        between: those at the place before the id.
        after: those at the place of the id, or later ones.
    """

    target: bool = False
    before: bool = False
    between: bool = False
    after: bool = False


def _moved(subject: Subject, seen: _Seen, by: int) -> _Moved:
    """Change one id and look which logits change, for some ids and random states.

    Raises:
        NotChecked: it cannot be told along which axis the logits depend on the ids.
    """
    assert seen.shift is not None
    model = subject.once("quiet call", lambda: quiet(seen.call.module))
    known = sorted(set(seen.ids.flatten().tolist()))
    found = _Moved()
    axes: set[int] = set()
    for place in _places(seen, by):
        ids = seen.ids.clone()
        ids[place[0], place[1]] = known[(known.index(int(ids[place[0], place[1]])) + 1) % len(known)]
        for seed in range(SEEDS):
            before, after = (_logits(model, seen, value, seed) for value in (seen.ids, ids))
            if before is None or after is None or before.shape != after.shape:
                raise NotChecked("the model returns other logits when it is called again")
            size = float((before - before.mean()).abs().max()) or 1.0
            changed = (before - after).abs().amax(-1) > MOVED * size
            lines = [changed.select(1 - axis, place[1 - axis]) for axis in (0, 1)]
            axes |= {axis for axis, line in enumerate(lines) if int(line.sum()) > int(bool(changed[tuple(place)]))}
            axis = seen.shift.axis if by else next(iter(axes), 1)
            line, at = lines[axis], place[axis]
            goal = at - by
            if not 0 <= goal < len(line):
                continue
            found.target |= bool(line[goal])
            found.before |= bool(line[:goal].any())
            found.between |= bool(line[max(at - 1, 0)])
            found.after |= bool(line[at:].any())
    if axes != {seen.shift.axis} if by else len(axes) != 1:
        raise NotChecked("along which axis the logits depend on earlier ids cannot be told")
    return found


def _places(seen: _Seen, by: int) -> Iterator[list[int]]:
    """Yield some places of ids that are targets: where a prompt is no target, its tokens may see each other."""
    assert seen.shift is not None
    targets = _targets(seen)
    scored = (targets != IGNORED).nonzero().tolist()
    for trial in range(1, TRIALS + 1):
        place = scored[len(scored) * trial // (TRIALS + 1)]
        place[seen.shift.axis] += by
        if place[seen.shift.axis] in range(targets.shape[seen.shift.axis]):
            yield place


def _logits(model: nn.Module, seen: _Seen, ids: Tensor, seed: int) -> Tensor | None:
    """Call the model again with another value of one argument, and return logits in the shape of the ids."""
    import torch

    arguments = [ids if _same(each, seen.ids) else each for each in seen.call.arguments]
    options = {key: ids if _same(each, seen.ids) else each for key, each in seen.call.options.items()}
    random.seed(seed)
    torch.manual_seed(seed)
    try:
        with torch.no_grad():
            output = model(*arguments, **options)
    except Exception as error:
        raise NotChecked(f"the model cannot be called again as it was: {type(error).__name__}: {error}") from error
    found = list(logits_of(output).values())
    return found[0].float().reshape(*ids.shape, found[0].shape[-1]) if len(found) == 1 else None


def _same(value: Any, ids: Tensor) -> bool:
    return value is ids


# Padding


@probe(
    "padding-not-learned",
    group="loss and step",
    says="A loss of a model of one's own leaves padding out.",
    loops=True,
)
def padding_not_learned(subject: Subject) -> Finding:
    """Find padding by the ids that rows end in, and look for a gradient of the logits there.

    Fault: The loss has a gradient at padding, although the code says that it is padding, or the target there is a class
    that real tokens have too. Padding takes the place of what is to be learned.

    Causes: `ignore_index` is missing or is another id than the one that pads targets, a loss mask covers padding, or
    targets are flattened in another order than the logits.

    Remedy: Pad targets with -100, or pass the padding id as `ignore_index`, or multiply the loss by the mask.

    Warning: The loss has a gradient at what seems to be padding, and nothing in the code says that it is.
    """
    if subject.tokenizer is not None and any("labels" in each.batch for each in trace_of(subject).forwards):
        raise NotChecked("the batches have labels: padding-unlabelled and label-padding-ignored look at them")
    found = list(_seen(subject))
    if not found:
        raise NotChecked("no argument of the model has one id for each target")
    for name in dict.fromkeys(each.name for each in found):
        same = [each for each in found if each.name == name]
        pad = padding_id([each.forward.batch[name] for each in same])
        if pad is not None:
            return _judged(subject, same, *pad)
    raise NotChecked("no batch of the model's ids is padded")


def _judged(subject: Subject, found: list[_Seen], pad: int, axis: int) -> Finding:

    learned = count = places = 0
    share = 0.0
    labels: list[int] = []
    real: set[int] = set()
    for each in found:
        pull = next(iter(each.call.pulls.values()))
        if pull.gradient is None or pull.gradient.shape[:-1] != each.forward.targets.shape:
            continue
        hidden = padded(each.ids, pad, axis).reshape(pull.gradient.shape[:-1])
        strength = pull.gradient.double().pow(2).sum(-1)
        total = float(strength.sum())
        if not total:
            continue
        count += 1
        places += int(hidden.sum())
        share += float(strength[hidden].sum()) / total
        pulled = hidden & (strength > PULLED * total / max(int(hidden.sum()), 1)) & (each.forward.targets != IGNORED)
        learned += int(pulled.sum())
        labels += each.forward.targets[pulled].tolist()
        text = (each.ids.reshape(hidden.shape) != pad) & (each.forward.targets != IGNORED)
        real |= set(each.forward.targets[text].tolist())
    if not count or not places:
        raise NotChecked("the gradient of the logits was not seen at padding")
    share /= count
    text = found[0].ids != pad
    if bool(((_targets(found[0]) != IGNORED) != text).any()) and bool(((_turned(found[0]) != IGNORED) == text).all()):
        return _other_order(found[0], f"targets and {found[0].name} end at the same places")
    if not learned or share < PULLED:
        return passed(f"no gradient comes from {places} padded places")
    label = max(set(labels), key=labels.count)
    name = found[0].name
    where = _where(found[0])
    counted = f"{learned} of {places} padded places of {name} (id {pad}) are learned, with target {label}"
    figures: dict[str, Any] = {"measured": learned, "expected": 0}
    remedy = f"pad targets with -100, or pass ignore_index to the loss ({where})"
    cause = f"{share:.1%} of the squared gradient of the logits comes from padding"
    if label in real and found[0].shift is None:
        cause += f", and {label} is a class that real tokens have too, so it is learned too often"
        return fail(counted, cause=f"{cause}: {remedy}", **figures)
    if _declared(found, pad, axis):
        cause += f", although the model is told elsewhere that {pad} is padding"
        return fail(counted, cause=f"{cause}: {remedy}", **figures)
    return warn(counted, cause=f"{cause}: {remedy}. Nothing is wrong if padding is a token to be learned", **figures)


def _targets(seen: _Seen) -> Tensor:
    """Return the targets in the shape of the ids."""
    targets: Tensor = seen.forward.targets.reshape(seen.ids.shape)
    return targets


def _turned(seen: _Seen) -> Tensor:
    """Return the targets as if they had been flattened along the other axis."""
    return _targets(seen).reshape(seen.ids.shape[::-1]).t()


def _other_order(seen: _Seen, proof: str) -> Finding:
    changed = int((_targets(seen) != _turned(seen)).sum())
    return fail(
        "targets are flattened in another order than the logits",
        cause=f"{changed} places are scored against the target of another row or time ({_where(seen)}). Laid out along "
        f"the other axis, {proof}: transpose neither logits nor targets, or both",
        measured=changed,
        expected=0,
    )


def _declared(found: list[_Seen], pad: int, axis: int) -> bool:
    """Tell whether the code says that an id is padding: by `padding_idx`, by a mask, or by lengths."""
    import torch

    seen = found[0]
    if any(isinstance(each, torch.nn.Embedding) and each.padding_idx == pad for each in seen.call.module.modules()):
        return True
    text, hidden = seen.ids != pad, padded(seen.ids, pad, axis)
    for value in [*seen.call.arguments, *seen.call.options.values()]:
        if not isinstance(value, torch.Tensor) or value is seen.ids:
            continue
        if value.dim() == 1 and torch.equal(value.long(), text.sum(axis)):
            return True
        for mask in (value, value.t()) if value.dim() == 2 else ():
            if mask.shape == text.shape:
                at_text, at_padding = mask.bool()[text], mask.bool()[hidden]
                if bool((at_text == at_text[0]).all() and (at_padding != at_text[0]).all()):
                    return True
    return False
