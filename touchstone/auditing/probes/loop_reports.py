"""Probes of training loops: the losses and perplexities that they print or log."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.observing.trace import Reported, Trace
from touchstone.auditing.probe import in_loops
from touchstone.auditing.probes.evaluation import evaluation_loss_by_token, perplexity_of_mean_loss
from touchstone.auditing.probes.loop import short, trace_of
from touchstone.auditing.probes.training_loss import training_loss_as_trained
from touchstone.auditing.reading.reported import (
    BatchLoss,
    Way,
    by_token,
    evaluation_before,
    is_apart,
    is_near,
    loss_of,
    mean_by,
    says_enough,
)
from touchstone.auditing.subject import Subject

PERPLEXITY = re.compile(r"ppl|perplexity", re.IGNORECASE)
TRAINING = re.compile(r"train", re.IGNORECASE)
EVALUATION = re.compile(r"val|dev|test", re.IGNORECASE)
SUM = re.compile(r"total|sum", re.IGNORECASE)
SMALL = 1e-3
"""Relative differences of two ways below this are no reason to warn."""
SURE = 1e-4
"""A number with fewer digits may agree by chance with a way that gives about the same."""
LIKELY = 5e-4
FAR = 1.5
"""A number that is off by this factor is sure with fewer digits."""
FAR_OFF = 10.0
"""A relative effect from which a factor is easier to read than a percentage."""


def _evaluations(subject: Subject, *, perplexity: bool) -> Iterator[tuple[Reported, list[BatchLoss], bool]]:
    """Yield the reported numbers that follow an evaluation, with the losses of its batches, and whether it was whole.

    Raises:
        NotChecked: there are none.
    """
    trace = trace_of(subject)
    what = "perplexity" if perplexity else "loss"
    named = [each for each in trace.reported if bool(PERPLEXITY.search(each.name)) == perplexity]
    reason = f"no {what} was seen in what the script prints or logs (print, logging, tqdm, Accelerator.log)"
    found = False
    for reported in named:
        if TRAINING.search(reported.name) or not says_enough(reported):
            continue
        try:
            forwards, whole = evaluation_before(trace, reported)
        except NotChecked as error:
            reason = str(error)
            continue
        losses = [each for forward in forwards if (each := loss_of(forward)) is not None]
        if len(losses) < len(forwards):
            reason = "the losses of the evaluation's batches were not seen, or are no plain means over labels"
            continue
        found = True
        yield reported, losses, whole
    if not found:
        raise NotChecked(reason)


@in_loops(evaluation_loss_by_token)
def reported_evaluation_loss(subject: Subject) -> Finding:
    """Find out how the evaluation loss that the loop reports is made of those of its batches."""
    findings, others = [], []
    for reported, losses, whole in _evaluations(subject, perplexity=False):
        right = by_token(losses)
        if is_near(reported, right):
            labels = sum(each.labels for each in losses)
            findings.append(
                passed(
                    f"`{reported.name}` {reported.value:.4g} is the mean over {labels} labels in {len(losses)} batches"
                )
            )
        elif (way := _first(reported, _ways(reported.name, losses, whole), right)) is not None:
            findings.append(_judged(reported, way, right))
        else:
            others.append(reported)
    return _worst(findings, others, "is no mean of the losses of the batches before it")


def _ways(name: str, losses: Sequence[BatchLoss], whole: bool) -> Iterator[Way]:
    """Yield ways to compute an evaluation loss that are not the mean over labels, the usual ones first.

    Args:
        name: how the script calls the result.
        losses: the losses of the batches.
        whole: the evaluation was not shortened.
    """
    count = len(losses)
    rows = [each.rows for each in losses]
    advice = "sum losses times labels, and divide by the labels"
    yield Way(mean_by(losses, [1] * count), "the mean of the batches' means, so it depends on the batch size", advice)
    yield Way(mean_by(losses, rows), "the mean of the batches' means weighted by rows, not by labels", advice)
    if count < 2:
        return
    total = sum(each.mean for each in losses)
    if not re.search("batch|last", name, re.IGNORECASE):
        yield Way(losses[-1].mean, f"the loss of the last of {count} batches alone", "add up the losses of all batches")
    if not whole:
        return  # a script that divides by the length of its loader does not know that the audit ended the pass early
    if not SUM.search(name):
        yield Way(total, f"the sum of the means of {count} batches", "divide it by the number of batches")
    yield Way(
        total / sum(rows),
        f"the sum of the means of {count} batches divided by the {sum(rows)} rows: {sum(rows) / count:.3g} times too "
        "small",
        "divide by len(loader), or multiply each mean by its number of labels",
    )
    size = rows[0]
    if rows[-1] < size and len(set(rows[:-1])) == 1:
        yield Way(
            sum(each.mean * size for each in losses) / sum(rows),
            f"a sum in which each batch counts as {size} rows, also the last one, which has {rows[-1]}, divided by "
            f"{sum(rows)} rows: {size * count / sum(rows):.3f} times too large",
            "multiply by the number of rows that the batch has",
        )


def _judged(reported: Reported, way: Way, right: float) -> Finding:
    effect = reported.value / right - 1
    message = f"`{reported.name}` is {reported.value:.4g}; from the mean over labels it is {right:.4g}"
    size = f"off by {effect:+.2%}" if abs(effect) < FAR_OFF else f"{reported.value / right:.3g} times as large"
    cause = f"at {short(reported.where)} it is {way.says} ({size}): {way.remedy}"
    figures = {"measured": reported.value, "expected": right}
    if way.is_mean:
        if abs(effect) < SMALL:
            return passed(f"{message}: {way.says}", **figures)
        return warn(message, cause=cause, **figures)
    exact = reported.tolerance / abs(reported.value)
    unsure = exact > SURE and (exact > LIKELY or 1 / FAR < reported.value / right < FAR)
    if unsure or way.may_be_meant:
        return warn(message, cause=cause, **figures)
    return fail(message, cause=cause, **figures)


@in_loops(perplexity_of_mean_loss)
def reported_perplexity(subject: Subject) -> Finding:
    """Compare a reported perplexity with the exponential of the mean loss of the evaluation before it."""
    findings, others = [], []
    for reported, losses, whole in _evaluations(subject, perplexity=True):
        right = _exp(by_token(losses))
        ways = [
            *(
                Way(
                    mean_by([replace(each, mean=_exp(each.mean)) for each in losses], weights),
                    "the mean of the exponentials of the batches' losses",
                    "take the exponential of the mean",
                )
                for weights in ([1] * len(losses), [each.rows for each in losses])
            ),
            Way(2 ** by_token(losses), "2 to the power of a loss in nats", "use exp"),
            *(Way(_exp(way.value), f"exp of {way.says}", way.remedy) for way in _ways(reported.name, losses, whole)),
        ]
        if is_near(reported, right):
            findings.append(passed(f"`{reported.name}` {reported.value:.4g} is exp of the mean loss by label"))
        # Means are tried first: with one batch, all ways are equal.
        elif (way := _first(reported, sorted(ways, key=lambda way: not way.is_mean), right)) is not None:
            findings.append(_judged(reported, way, right))
        else:
            others.append(reported)
    return _worst(findings, others, "is no exponential of the mean loss of the batches before it")


def _first(reported: Reported, ways: Iterable[Way], right: float) -> Way | None:
    """Return the first way that gives a reported number, if that is surely not the right one."""
    if not is_apart(reported, right):
        return None
    return next((way for way in ways if is_near(reported, way.value)), None)


def _worst(findings: Sequence[Finding], others: Sequence[Reported], text: str) -> Finding:
    """Return the first fault among some findings, or the first warning, or the first one.

    Raises:
        NotChecked: there is none.
    """
    for outcome in ("fail", "warn", "pass"):
        for each in findings:
            if each.outcome == outcome:
                return each
    first = others[0]
    raise NotChecked(f"`{first.name}` {first.value:.4g} at {short(first.where)} {text}")


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


@in_loops(training_loss_as_trained)
def reported_training_loss(subject: Subject) -> Finding:
    """Compare the training losses that the loop reports with those of the batches of its steps."""
    trace = trace_of(subject)
    parts = subject.settings.accumulation or 1
    wrong: dict[bool, list[tuple[Reported, float]]] = {True: [], False: []}
    rightly: list[Reported] = []
    other = None
    for reported, steps, trained in _trainings(trace):
        right = [value for window in steps for value in _means(window)]
        if any(is_near(reported, value) for value in (*right, trained[-1], sum(trained) / len(trained))):
            rightly.append(reported)
            continue
        if parts > 1 and _divided(trace, parts):
            wrong[False] += [(reported, value) for value in right if is_near(reported, value / parts)][:1]
        if parts > 1 and not SUM.search(reported.name):
            wrong[True] += [(reported, value) for value in right if is_near(reported, value * parts)][:1]
        if TRAINING.search(reported.name) or trace.forwards[reported.forwards - 1].grad:
            other = other or reported  # a loss without another name may be that of an evaluation
    for large, found in wrong.items():
        if found:
            return _times(parts, large, found)
    if rightly:
        return passed(f"`{rightly[0].name}` {rightly[0].value:.4g} is the loss of the batches trained on")
    if other is None:
        raise NotChecked("no training loss was seen in what the script prints or logs (print, logging, tqdm)")
    raise NotChecked(
        f"`{other.name}` {other.value:.4g} at {short(other.where)} is no mean of the losses seen: it may be smoothed"
    )


def _times(parts: int, large: bool, found: Sequence[tuple[Reported, float]]) -> Finding:
    reported, value = found[0]  # a warning: the training is right, and a script may mean what it prints
    how = (
        f"too large: the losses of the {parts} micro-batches of a step are added up, and the sum is divided by steps. "
        "Divide it by the number of micro-batches"
        if large
        else f"too small: the loss is divided by the {parts} micro-batches of a step before it is added up for the "
        f"report. Add it up before it is divided, or multiply it by {parts}"
    )
    return warn(
        f"`{reported.name}` is {reported.value:.4g}, but the loss of the batches trained on is {value:.4g}",
        cause=f"what is reported at {short(reported.where)} is {parts}.0 times {how}",
        measured=reported.value,
        expected=value,
    )


def _means(steps: Sequence[Sequence[float]]) -> list[float]:
    """Return the losses that a report after some steps may give: of the last batch, the last step, or all."""
    batches = [loss for step in steps for loss in step]
    means = [sum(step) / len(step) for step in steps]
    return [batches[-1], means[-1], sum(batches) / len(batches), sum(means) / len(means)]


def _trainings(trace: Trace) -> Iterator[tuple[Reported, list[list[list[float]]], list[float]]]:
    """Yield the reported numbers that follow a training step, each with the losses of the steps before it.

    There are two lists of steps, each with the losses of its batches: those since the beginning of the pass, and those
    since the last report of this name. The last part is what each step of the pass called backward on, added up.
    """
    last: dict[str, int] = {}
    for reported in trace.reported:
        began = last.get(reported.name, 0)
        last[reported.name] = reported.forwards
        before = [each for each in trace.updates if each.forwards and max(each.forwards) < reported.forwards]
        before = [each for each in before if each.passing == before[-1].passing]
        if not before or PERPLEXITY.search(reported.name) or EVALUATION.search(reported.name):
            continue
        if not says_enough(reported) or _after_a_shortened_pass(trace, before[-1].passing, reported):
            continue
        steps: list[tuple[int, list[float]]] = []
        for update in before:
            known = [loss_of(trace.forwards[index]) for index in update.forwards]
            steps.append((min(update.forwards), [each.mean for each in known if each is not None]))
        if all(losses and len(losses) == len(update.losses) for (_, losses), update in zip(steps, before, strict=True)):
            recent = [losses for first, losses in steps if first >= began]
            windows = [[losses for _, losses in steps], *([recent] if recent else [])]
            yield reported, windows, [sum(update.losses) for update in before]


def _after_a_shortened_pass(trace: Trace, passing: int | None, reported: Reported) -> bool:
    """Whether the audit ended the pass before a report, so that a mean over the loader's length is wrong."""
    if passing is None or not trace.passes[passing].shortened:
        return False
    return not any(each.grad and each.passing == passing for each in trace.forwards[reported.forwards :])


def _divided(trace: Trace, parts: int) -> bool:
    """Whether backward is called on the mean of a batch divided by the number of micro-batches."""
    for update in trace.updates:
        for index, value in zip(update.forwards, update.losses, strict=False):
            loss = loss_of(trace.forwards[index])
            if loss is not None and abs(value * parts - loss.mean) > 1e-3 * abs(loss.mean):
                return False
    return True
