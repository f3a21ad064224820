"""Probes of training loops: training and evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from touchstone.auditing.copies import copy_of
from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.observing.calls import Call, copied, unwrapped
from touchstone.auditing.observing.trace import Forward, Trace
from touchstone.auditing.probe import in_loops
from touchstone.auditing.probes.loop import short, trace_of
from touchstone.auditing.probes.mode import differ, dropout_off_in_evaluation, dropout_on_in_training, first_tensor
from touchstone.auditing.subject import Subject

if TYPE_CHECKING:
    from torch import nn


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


@in_loops(dropout_on_in_training, budget="fast")
def training_mode(subject: Subject) -> Finding:
    """Look for training steps with dropout switched off."""
    trace = trace_of(subject)
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
    where = short(quiet[0].where)
    if any(call.training for call in calls):
        return fail(
            f"from optimizer step {quiet[0].step + 1} on, the model is trained in evaluation mode",
            cause=f"dropout ({rate:g}) is off at {where}: an evaluation called model.eval(), and nothing "
            "calls model.train() before training goes on",
            measured=len(quiet),
            expected=0,
        )
    first = next(index for index, each in enumerate(trace.forwards) if each is quiet[0])
    evaluated = any(not each.grad for each in trace.forwards[:first])
    why = "an evaluation called model.eval()" if evaluated else "from_pretrained returns a model in evaluation mode"
    return fail(
        "the model is trained in evaluation mode",
        cause=f"dropout ({rate:g}) is off at {where}; {why}: call model.train() before the loop"
        + _other_models(subject),
        measured=len(quiet),
        expected=0,
    )


def _other_models(subject: Subject) -> str:
    """Return a remark if the optimizer trains other models too, of which one may be meant to stay."""
    foreign = any(facts.others for facts in trace_of(subject).optimizers)
    return ". The optimizer trains several models: leave one out of it that is a teacher or a reference" * foreign


@in_loops(dropout_off_in_evaluation, budget="fast")
def evaluation_mode(subject: Subject) -> Finding:
    """Look for evaluations with dropout switched on."""
    trace = trace_of(subject)
    calls = list(_evaluation_calls(trace))
    rate = _dropout(subject)
    noisy = [call for call in calls if call.training]
    if not noisy or rate == 0.0:
        random = _random(subject)
        if random is not None:
            return random
    if not calls:
        raise NotChecked("no evaluation was seen: --budget deep lets longer epochs end")
    if not noisy:
        return passed(f"the model was in evaluation mode in {len(calls)} evaluation calls")
    if rate == 0.0:
        return passed("the model was in training mode in the evaluation, but has no dropout")
    what = "generates" if noisy[0].generating else "is evaluated"
    return fail(
        f"the model {what} in training mode, in {len(noisy)} of {len(calls)} evaluation calls",
        cause=f"dropout ({rate:g}) is on at {short(noisy[0].where)}, so that scores are too low and differ each time: "
        "call model.eval() before the evaluation, and model.train() after it",
        measured=len(noisy),
        expected=0,
    )


def _random(subject: Subject) -> Finding | None:
    """Repeat a call of the evaluation as it was, twice, on a copy, and return a finding if the two differ.

    If they are equal without `functional.dropout`, dropout is on. Anything else that is drawn may be meant, as in a
    variational model.
    """
    evaluated = list(_evaluation_calls(trace_of(subject)))
    for forward, call in zip(trace_of(subject).forwards, subject.extra["calls"], strict=True):
        if forward.generating or not forward.batch or not any(each is forward for each in evaluated):
            continue
        try:
            model = copy_of(unwrapped(call.module)).eval()
            finding = _twice(model, call)
            if finding is None:
                return None
            with _without_dropout():
                rest = _twice(model, call)
        except Exception:
            return None  # the call needs what is gone, such as a state or a cache
        if rest is None:
            return finding
        return warn(
            finding.message,
            cause=f"something is drawn in the evaluation at {short(forward.where)}, such as teacher forcing or a "
            "sample: scores of two evaluations differ by chance",
            measured=finding.measured,
            expected=0.0,
        )
    return None


def _twice(model: nn.Module, call: Call) -> Finding | None:
    import torch

    with torch.no_grad():
        first, second = (first_tensor(model(*copied(call.arguments), **copied(call.options))) for _ in range(2))
    return differ(first, second) if first.shape == second.shape else None


@contextmanager
def _without_dropout() -> Iterator[None]:
    """Let `functional.dropout` return what it is given."""
    from torch.nn import functional

    original = functional.dropout
    functional.dropout = lambda input, *_, **__: input
    try:
        yield
    finally:
        functional.dropout = original


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
