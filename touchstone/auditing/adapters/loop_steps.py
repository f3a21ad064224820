"""Make steps of what was kept of an observed loop, and compute their logits again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from touchstone.auditing.observing.calls import Call, logits_of
from touchstone.auditing.observing.record import Recorder
from touchstone.auditing.observing.steps import Kept
from touchstone.auditing.observing.trace import Trace, Update
from touchstone.auditing.subject import Pull, Step

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def observed_steps(recorder: Recorder, model: nn.Module) -> list[Step]:
    """Return the optimizer steps of which weights and gradients were kept.

    Args:
        recorder: what was observed.
        model: the model without wrappers.
    """
    trace = recorder.trace
    steps = []
    for index, kept in sorted(recorder.kept.items()):
        update = trace.updates[index]
        forwards = [trace.forwards[each] for each in update.forwards]
        whole = len(forwards) == len(update.losses) and all(forward.batch for forward in forwards)
        if whole and forwards and kept.gradients is not None:
            steps.append(_step(recorder, model, update, kept, last=_is_last(trace, index)))
    return steps


def _is_last(trace: Trace, index: int) -> bool:
    passing = trace.updates[index].passing
    if passing is None or not trace.passes[passing].ended:
        return False
    return all(each.passing != passing for each in trace.updates[index + 1 :])


def _step(recorder: Recorder, model: nn.Module, update: Update, kept: Kept, *, last: bool) -> Step:
    def own(name: str) -> str:
        return name.removeprefix("module.").removeprefix("_orig_mod.")

    trainable = {own(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    weights = {own(name): value for name, value in kept.weights.items()}
    parameters = {name: value.clone().requires_grad_() for name, value in weights.items() if name in trainable}
    buffers = {name: value for name, value in weights.items() if name not in trainable}
    calls = [recorder.calls[each] for each in update.forwards]
    assert kept.gradients is not None
    return Step(
        batches=[recorder.trace.forwards[each].batch for each in update.forwards],
        losses=update.losses,
        gradients={own(name): value for name, value in kept.gradients.items()},
        logits=lambda place: _logits(model, calls[place], {**parameters, **buffers}),
        parameters=parameters,
        last=last,
        pulls=[{name: _unscaled(pull, update.scale) for name, pull in call.pulls.items()} for call in calls],
    )


def _unscaled(pull: Pull, scale: float) -> Pull:
    """Return a pull without the factor of a GradScaler."""
    return pull if scale == 1.0 or pull.gradient is None else Pull(pull.logits, pull.gradient / scale)


def _logits(model: nn.Module, call: Call, weights: dict[str, Tensor]) -> Any:
    """Return the logits of a repeated call: one tensor, or those of the start and the end of an answer."""
    found = list(logits_of(_replay(model, call, weights)).values())
    return found[0] if len(found) == 1 else tuple(found) or None


def _replay(model: nn.Module, call: Call, weights: dict[str, Tensor]) -> Any:
    """Call the model again with the weights and the random state of a call that was seen."""
    import torch
    from torch.func import functional_call

    arguments, options = call.arguments, call.options
    frozen = {name: value.clone() for name, value in weights.items() if not value.requires_grad}
    with _random_state(call.rng), _modes(model, call.modes), torch.enable_grad():
        if call.autocast is not None:
            with torch.autocast(call.autocast[0], dtype=call.autocast[1]):
                return functional_call(model, {**weights, **frozen}, arguments, options)
        return functional_call(model, {**weights, **frozen}, arguments, options)


@contextmanager
def _random_state(states: tuple[Any, ...]) -> Iterator[None]:
    import torch

    before = torch.get_rng_state()
    devices = [torch.cuda.get_rng_state(index) for index in range(len(states) - 1)]
    torch.set_rng_state(states[0])
    for index, state in enumerate(states[1:]):
        torch.cuda.set_rng_state(state, index)
    try:
        yield
    finally:
        torch.set_rng_state(before)
        for index, state in enumerate(devices):
            torch.cuda.set_rng_state(state, index)


@contextmanager
def _modes(model: torch.nn.Module, modes: Sequence[bool]) -> Iterator[None]:
    before = [(module, module.training) for module in model.modules()]
    for module, mode in zip(model.modules(), modes[-len(before) :], strict=True):
        module.training = mode
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode
