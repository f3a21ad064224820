"""Probes of the loss in the observed steps of a loop: what each position learned, and with which weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.observing.trace import Trace
from touchstone.auditing.probe import in_loops
from touchstone.auditing.probes.loop import trace_of
from touchstone.auditing.probes.step import accumulation_divided, last_partial_step, loss_is_the_mean_over_labels
from touchstone.auditing.reading import activated
from touchstone.auditing.reading.loss import FITS, Reading, moved
from touchstone.auditing.reading.steps import expected_shift, readings
from touchstone.auditing.subject import IGNORED, Step, Subject, tensor

UNIFORM = 1e-4
"""Share of the squared gradient that one common weight may leave unexplained."""
CLOSE = 2e-2
"""Relative difference up to which two scales are the same. Float32 leaves 1e-5; the scales compared differ by half."""
UNEQUAL = 1.2
"""Micro-batches whose numbers of labels differ by less count about the same."""
STRAY = 1e-4
"""Share of the squared gradient at positions without a label that is no rounding, also in half precision."""


@dataclass
class _Micro:
    """The reading of one micro-batch.

    Args:
        found: the readings by the name of the logits.
        count: the labels of the whole micro-batch that its loss asks for.
    """

    found: dict[str, Reading]
    count: int

    @property
    def weight(self) -> float:
        """The weight of one label, the mean over the heads."""
        return sum(each.common_weight()[0] for each in self.found.values()) / len(self.found)

    @property
    def uniform(self) -> bool:
        return all(each.common_weight()[1] <= UNIFORM and each.misfit <= FITS for each in self.found.values())


def _read(subject: Subject) -> list[tuple[Step, list[_Micro]]]:
    """Return the readings of all micro-batches of the observed steps. Probes share them.

    Raises:
        NotChecked: the loss cannot be read.
    """
    if not subject.steps:
        raise NotChecked("no whole optimizer step was seen")
    return subject.once("loop readings", lambda: [(step, list(_micros(subject, step))) for step in subject.steps])


def _micros(subject: Subject, step: Step) -> Iterator[_Micro]:
    for index, batch in enumerate(step.batches):
        found = readings(subject, step, index)
        first = next(iter(found.values()))
        labels = tensor(batch.get("labels", batch.get("start_positions")))
        shifted = moved(labels, first.shift) if labels.dim() == 2 else labels
        yield _Micro(found, int((shifted != IGNORED).sum()))


def _where(subject: Subject) -> str:
    trace: Trace = subject.need("trace")
    for forward in trace.forwards:
        for call in forward.losses:
            if call.where:
                return " (" + call.where.rsplit("/", 1)[-1] + ")"
    return ""


@in_loops(loss_is_the_mean_over_labels)
def loss_of_the_labels(subject: Subject) -> Finding:
    """Read the target of every position off the gradient of the logits in the observed steps."""
    read = _read(subject)
    where = _where(subject)
    for step, micros in read:
        for index, (batch, micro) in enumerate(zip(step.batches, micros, strict=True)):
            whole = all(each.count == micro.count for each in micro.found.values())
            heads = [each.applied for each in micro.found.values()]
            wrong = activated.named(heads, step.losses[index] if whole else None, where)
            if wrong is not None:
                return wrong
            for each in micro.found.values():
                if each.misfit > FITS:
                    return warn(
                        "the loss is not the cross-entropy of the labels: custom loss?",
                        cause=f"{each.misfit:.1%} of the squared gradient of the logits is no cross-entropy of the "
                        f"labels{where}. Nothing is wrong if the loss has other parts by design",
                        measured=each.misfit,
                        expected=0.0,
                    )
                if each.stray > STRAY and each.stray_target is not None:
                    return _learned_at_ignored(subject, each, each.stray_target, where)
                expected = expected_shift(subject, batch)
                if expected is not None and each.shift != expected and subject.task != "causal-lm":
                    return _shifted(each.shift, expected, where)  # those of causal models: labels-shifted-once
    count = sum(micro.count for _, micros in read for micro in micros)
    return passed(f"the loss of {len(read)} observed steps is the cross-entropy of their {count} labels")


def _learned_at_ignored(subject: Subject, reading: Reading, target: int, where: str) -> Finding:
    if subject.task == "question-answering" and target == 0:
        return warn(
            "negative positions are learned as position 0",
            cause="the heads of transformers clamp them: right if position 0 stands for no answer, as [CLS] does where "
            "rows are padded on the right",
            measured=reading.stray,
            expected=0.0,
        )
    name = subject.label_text(target) if subject.task == "token-classification" else subject.token_texts([target])[0]
    return fail(
        f"positions whose label is -100 are learned as label {target} ({name})",
        cause=f"{reading.stray:.0%} of the squared gradient lies at positions that have the label -100, such as "
        f"padding{where}: ignore them (ignore_index=-100)",
        measured=reading.stray,
        expected=0.0,
    )


_AHEAD = {
    0: "the label at its own place",
    1: "the next label",
    2: "the label after the next",
    -1: "the label before",
}


def _shifted(shift: int, expected: int, where: str) -> Finding:
    return fail(
        f"every position learns {_AHEAD[shift]} instead of {_AHEAD[expected]}",
        cause=f"in the observed steps labels are shifted by {shift} and not by {expected}{where}: labels and logits of "
        "this task stand at the same places, so do not shift them",
        measured=shift,
        expected=expected,
    )


@in_loops(accumulation_divided)
def accumulation(subject: Subject) -> Finding:
    """Compare the weight of a label in the observed steps with that of a mean."""
    read = _read(subject)
    announced = subject.settings.accumulation or 1
    known = [(step, micros) for step, micros in read if all(each.uniform for each in micros)]
    if not known:
        raise NotChecked("labels have different weights in the loss, so its scale cannot be read")
    whole = [pair for pair in known if len(pair[1]) == announced] or known
    _, micros = whole[0]
    parts = len(micros)
    heads = len(micros[0].found)
    total = sum(each.count for each in micros)
    means = [each.weight * each.count * parts * heads for each in micros]
    tokens = [each.weight * total * heads for each in micros]
    if _all_near(tokens, 1.0) and parts > 1:
        return passed(
            f"the loss of a step is the mean over the labels of its {parts} micro-batches", measured=tokens[0]
        )
    where = _where(subject)
    if parts > 1 and (_all_near(means, parts) or _all_near(tokens, parts)):
        return fail(
            f"gradients are {parts}.0 times too large: accumulation ({parts}) is not divided",
            cause=f"backward is called {parts} times per optimizer step, each time on the mean of a batch{where}"
            f": divide the loss by {parts}, or the sum over the step by its {total} labels",
            measured=sum(means) / parts,
            expected=1.0,
        )
    if parts > 1 and _all_near(means, 1 / parts):
        return fail(
            f"gradients are {parts}.0 times too small: accumulation ({parts}) is divided twice",
            cause=f"the loss is divided by {parts}{where}, and Accelerate divides it again "
            f"(gradient_accumulation_steps={parts}): divide once",
            measured=sum(means) / parts,
            expected=1.0,
        )
    if _all_near(means, 1.0):
        return _unequal(micros, parts)
    if _all_near([each.weight * heads for each in micros], 1.0):
        return warn(
            f"the loss is a sum over labels, not a mean: {means[0]:.4g} times as large",
            cause=f"a step with more labels is larger{where}: clipping and the learning rate depend on the batch",
            measured=means[0],
            expected=1.0,
        )
    return warn(
        f"the loss is scaled: a label counts {means[0]:.4g} times as much as in a mean",
        cause=f"the loss is multiplied{where}; if that is meant, nothing is wrong",
        measured=means[0],
        expected=1.0,
    )


def _all_near(values: list[float], wanted: float) -> bool:
    return all(abs(value / wanted - 1) < CLOSE for value in values)


def _unequal(micros: list[_Micro], parts: int) -> Finding:
    counts = [each.count for each in micros]
    if parts == 1:
        return passed(f"the loss of a step is the mean over its {counts[0]} labels")
    spread = max(counts) / max(min(counts), 1)
    if spread < UNEQUAL:
        return passed(f"the loss of a step is the mean of its {parts} micro-batches, which have {counts} labels")
    return warn(
        f"a step is the mean of its micro-batches' means, which have {min(counts)} to {max(counts)} labels",
        cause=f"a label counts up to {spread:.3g} times as much in one micro-batch as in another: divide the sum over "
        "the step by the number of its labels",
        measured=spread,
        expected=1.0,
    )


@in_loops(last_partial_step)
def last_group(subject: Subject) -> Finding:
    """Look for batches at the end of an epoch that are trained on in the next epoch, never, or with less weight."""
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
        return _partial(subject) or passed(f"all {first.batches} batches of an epoch reach a step of the same epoch")
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


def _partial(subject: Subject) -> Finding | None:
    """Return a warning if a shorter step is divided by the number of micro-batches of a whole one."""
    announced = subject.settings.accumulation or 1
    try:
        read = _read(subject)
    except NotChecked:
        return None
    for _, micros in read:
        parts, heads = len(micros), len(micros[0].found)
        scales = [each.weight * each.count * parts * heads for each in micros]
        if parts < announced and all(each.uniform for each in micros) and _all_near(scales, parts / announced):
            return warn(
                f"the last step of an epoch has {parts} of {announced} micro-batches, but is divided by {announced}",
                cause=f"its gradient is {parts / announced:.3g} of what it should be: divide by the number of "
                "micro-batches in the step",
                measured=parts / announced,
                expected=1.0,
            )
    return None
