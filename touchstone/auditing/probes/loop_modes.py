"""Probes of training loops: training and evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator

from touchstone.auditing.finding import Finding, NotChecked, fail, passed
from touchstone.auditing.observing.trace import Forward, Trace
from touchstone.auditing.probe import in_loops
from touchstone.auditing.probes.loop import short, trace_of
from touchstone.auditing.probes.mode import dropout_off_in_evaluation, dropout_on_in_training, random_in_evaluation
from touchstone.auditing.subject import Subject


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
    return fail(
        "the model is trained in evaluation mode",
        cause=f"dropout ({rate:g}) is off at {where}; from_pretrained returns a model in evaluation mode: "
        "call model.train() before the loop",
        measured=len(quiet),
        expected=0,
    )


@in_loops(dropout_off_in_evaluation, budget="fast")
def evaluation_mode(subject: Subject) -> Finding:
    """Look for evaluations with dropout switched on."""
    trace = trace_of(subject)
    calls = list(_evaluation_calls(trace))
    rate = _dropout(subject)
    noisy = [call for call in calls if call.training]
    if not noisy or rate == 0.0:
        random = random_in_evaluation(subject)
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
