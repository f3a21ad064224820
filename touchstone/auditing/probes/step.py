"""Probes of the loss and the gradient of one optimizer step."""

from __future__ import annotations

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading import activated
from touchstone.auditing.reading.loss import FITS, SILENT, Reading
from touchstone.auditing.reading.steps import (
    expected_shift,
    label_count,
    ragged_batch,
    readings,
    relation,
    repeated,
    rows_and_positions,
    single_rows,
)
from touchstone.auditing.subject import IGNORED, Batch, Step, Stepper, Subject, tensor, unadapted

COPIES = 3
"""Micro-batches that are compared with one batch: three, so that 1/3, 1 and 3 are far apart."""
CLOSE = 2e-3
"""Relative difference up to which a divisor is taken for a count. Float32 leaves about 1e-5."""
UNIFORM = 1e-4
"""Share of the squared gradient that one common weight may leave unexplained."""
ISSUE = "transformers#47688"


@probe(
    "loss-is-the-mean-over-labels",
    group="loss and step",
    says="The loss of a batch is the mean cross-entropy over its labelled tokens.",
    loops=False,
)
def loss_is_the_mean_over_labels(subject: Subject) -> Finding:
    """Read the weight and the target of every position off the gradient of the logits.

    Fault: The loss is not the mean over the labelled tokens: positions with the label -100 are learned, targets are
    shifted, the sign is wrong, or the sum is divided by the wrong number. Gradients are then scaled by the batch's
    form, and the learning rate means something else. Or the loss has an activation too many or too few, such as a
    softmax before cross-entropy: it then cannot fall below a floor however sure the model is, or falls without end.

    Causes: A loss of your own uses reduction='sum', divides by all positions with padding, replaces -100 by an id, or
    shifts labels that are not to be shifted. It is given probabilities in place of logits, or logits in place of
    log-probabilities.

    Remedy: Let the model compute the loss, or use `cross_entropy(logits.flatten(0, 1), labels.flatten(),
    ignore_index=-100)`. Under accumulation, use reduction='sum' and divide by `num_items_in_batch`.

    Warning: The loss has weights or parts that may be meant, such as class weights, a mean over rows or a CRF, or it
    is divided by the unshifted labels as in GPT-2. The finding gives the size.
    """
    where = f" ({subject.where['loss']})" if "loss" in subject.where else ""
    judged = _of_binary_labels(subject, where)
    if judged is not None:
        return judged
    batch, found, reported = _read(subject)
    wrong = activated.named([each.applied for each in found.values()], reported, where)
    if wrong is not None:
        return wrong
    first = next(iter(found.values()))
    if any(each.stray_uniform for each in found.values()):
        raise NotChecked("label smoothing reaches positions without a label: see label-smoothing-as-set")
    shifted = _shift_fault(subject, batch, first, where)
    if shifted is not None:
        return shifted
    for each in found.values():
        if each.stray > SILENT and each.stray_target is not None:
            return _learned_at_ignored(subject, each, each.stray_target, where)
    if any(each.stray > SILENT for each in found.values()) or any(each.misfit > FITS for each in found.values()):
        share = max(max(each.misfit, each.stray) for each in found.values())
        return warn(
            "the loss is not the mean cross-entropy of the labels: custom loss?",
            cause=f"{share:.2g} of the squared gradient of the logits is no cross-entropy of the labels{where}. "
            "Nothing is wrong if the loss has other parts by design (distillation, focal loss, a CRF)",
            measured=share,
            expected=0.0,
        )
    return _scale(subject, batch, found, reported, where)


def _learned_at_ignored(subject: Subject, reading: Reading, target: int, where: str) -> Finding:
    name = subject.label_text(target) if subject.task == "token-classification" else subject.token_texts([target])[0]
    return fail(
        f"positions whose label is -100 are learned as label {target} ({name})",
        cause=f"{reading.strays} positions of a batch have the label -100, such as padding, but their logits get a "
        f"gradient{where}: ignore them (ignore_index=-100), and keep -100 in the labels until the loss",
        measured=reading.strays,
        expected=0,
    )


def _stepped(subject: Subject) -> Step:
    """Return a step on one batch of a few rows. Probes share it."""
    stepper: Stepper = subject.need("step")
    return subject.once("one step", lambda: stepper([ragged_batch(subject)]))


def _of_binary_labels(subject: Subject, where: str) -> Finding | None:
    """Return the finding about a loss whose labels are one number per output, or None."""
    step = _stepped(subject)
    pull = step.pulls[0].get("logits") if step.pulls else None
    labels = tensor(step.batches[0].get("labels", 0))
    if pull is None or pull.gradient is None or not labels.is_floating_point() or labels.shape != pull.logits.shape:
        return None
    return activated.binary(pull.logits, pull.gradient, labels.to(pull.logits.device), step.losses[0], where)


def _read(subject: Subject) -> tuple[Batch, dict[str, Reading], float]:
    """Return a batch, the reading of its loss, and the reported loss. Probes share them."""
    step = _stepped(subject)
    return step.batches[0], subject.once("loss reading", lambda: readings(subject, step)), step.losses[0]


def _shift_fault(subject: Subject, batch: Batch, reading: Reading, where: str) -> Finding | None:
    expected = expected_shift(subject, batch)
    # Labels that were rolled come round at the end of a row, so that some of the gradient lies elsewhere.
    if expected is None or reading.shift == expected or reading.misfit > FITS or reading.stray > 0.2:
        return None
    if subject.task == "causal-lm":
        raise NotChecked(f"labels are shifted by {reading.shift} instead of {expected}: see labels-shifted-once")
    ahead = {
        0: "the label at its own place",
        1: "the next label",
        2: "the label after the next",
        -1: "the label before",
    }
    return fail(
        f"every position learns {ahead[reading.shift]} instead of {ahead[expected]}",
        cause=f"labels are shifted by {reading.shift}{where}, but labels of this task stand at their logits' places",
        measured=reading.shift,
        expected=expected,
    )


def _scale(subject: Subject, batch: Batch, found: dict[str, Reading], reported: float, where: str) -> Finding:
    """Name what the loss was divided by."""
    heads = len(found)
    weights = [each.common_weight() for each in found.values()]
    count = next(iter(found.values())).count
    weight = sum(each for each, _ in weights) / heads
    if weight < 0:
        return fail(
            "the loss has the wrong sign: training makes labels less likely",
            cause=f"the gradient is that of minus the cross-entropy{where}: return the cross-entropy itself",
            measured=weight * count * heads,
            expected=1.0,
        )
    if any(misfit > UNIFORM for _, misfit in weights) or not weight:
        return _weighted(subject, found, where)
    unequal = heads == 2 and abs(weights[0][0] / weights[1][0] - 1) > CLOSE
    factor = weight * count * heads
    if unequal:
        return warn(f"start and end positions count differently: {weights[0][0] / weights[1][0]:.3g} to 1", cause=where)
    if abs(factor - 1) <= CLOSE:
        smoothing = next(iter(found.values())).smoothing
        smoothed = f", with label smoothing {smoothing:.3g}" if smoothing > 1e-3 else ""
        return passed(
            f"the loss of a batch is the mean over its {count} labels{smoothed}", measured=factor, expected=1.0
        )
    figures = f"gradients are {factor:.4g} times those of the mean over the {count} labelled tokens"
    named = _divisor(subject, batch, found, 1 / (weight * heads))
    if named is None:
        return warn(
            f"the loss is scaled: {figures}",
            cause=f"the mean is multiplied by {factor:.4g}{where}; if that is meant, nothing is wrong",
            measured=factor,
            expected=1.0,
        )
    name, outcome, cause = named
    make = fail if outcome == "fail" else warn
    return make(f"{name}: {figures}", cause=f"{cause}{where}", measured=factor, expected=1.0)


def _divisor(subject: Subject, batch: Batch, found: dict[str, Reading], divisor: float) -> tuple[str, str, str] | None:
    """Return what the sum over labels was divided by, whether that is a fault, and what to change."""
    reading = next(iter(found.values()))
    rows, positions = rows_and_positions(batch)
    ahead = abs(reading.shift)
    candidates: list[tuple[float, str, str, str]] = [
        (
            1,
            "the loss is the sum over labels, not their mean",
            "fail",
            "batches with more labels pull harder, and the learning rate means something else: use reduction='mean', "
            "or divide by num_items_in_batch",
        )
    ]
    if "start_positions" in batch:
        candidates.append(
            (rows / 2, "start and end losses are added, not averaged", "warn", "the course's models take their mean")
        )
        candidates.append((0.5, *candidates[0][1:]))
    else:
        if ahead:
            unshifted = int((tensor(batch["labels"]) != IGNORED).sum())
            cause = "the labels are counted before the shift: the first label of a row is never a target"
            if "loss" not in subject.where:
                cause += (
                    f". It is so in transformers for {type(unadapted(subject.model)).__name__}, whose loss_type is None"
                )
            candidates.append((unshifted, "the loss is divided by the unshifted labels", "warn", cause))
        if reading.count < rows * positions - rows * ahead:
            everything = (
                "the loss is divided by all positions, padding and unlabelled ones included",
                "fail",
                "the more padding a batch has, the less it counts: divide by the number of labels that are not -100",
            )
            candidates.append((rows * positions, *everything))
            candidates.append((rows * (positions - ahead), *everything))
        if rows != reading.count:
            cause = "long rows pull harder than short ones; if it is meant, nothing is wrong"
            candidates.append((rows, "the loss is divided by the number of rows", "warn", cause))
        if "attention_mask" in batch:
            cause = "tokens without a label are counted in the divisor"
            real = int(tensor(batch["attention_mask"]).sum())
            candidates.append((real, "the loss is divided by the number of unpadded tokens", "warn", cause))
    for value, name, outcome, cause in candidates:
        if value and abs(divisor / value - 1) <= CLOSE:
            return name, outcome, cause
    return None


def _weighted(subject: Subject, found: dict[str, Reading], where: str) -> Finding:
    """Describe a loss whose tokens have different weights."""
    import torch

    reading = next(iter(found.values()))
    rows = torch.arange(len(reading.targets), device=reading.targets.device)[:, None].expand_as(reading.targets)
    if all(reading.common_weight(rows == row)[1] <= UNIFORM for row in range(len(reading.targets))):
        per_row = [reading.common_weight(rows == row)[0] for row in range(len(reading.targets))]
        counts = [int((reading.labelled & (rows == row)).sum()) for row in range(len(reading.targets))]
        sums = [weight * count for weight, count in zip(per_row, counts, strict=True) if count]
        if max(sums) <= min(sums) * 1.01:
            small, large = min(filter(None, counts)), max(counts)
            return warn(
                "rows count equally, however many labels they have",
                cause=f"the loss is a mean over rows of their means, not over tokens{where}: a token of a row with "
                f"{small} labels counts {large / small:.3g} times one of a row with {large}. Nothing is wrong if that "
                "is meant",
                measured=per_row,
            )
        return warn(
            "rows have weights of their own",
            cause=f"weights of the rows' tokens: {', '.join(f'{each:.3g}' for each in per_row)}{where}",
            measured=per_row,
        )
    kinds = [int(each) for each in torch.unique(reading.targets[reading.labelled])]
    by_kind = {kind: reading.common_weight(reading.targets == kind) for kind in kinds}
    if len(kinds) > 1 and all(misfit <= UNIFORM for _, misfit in by_kind.values()):
        total = sum(weight for weight, _ in by_kind.values()) / len(by_kind)
        shown = [f"{subject.label_text(kind)} {weight / total:.3g}" for kind, (weight, _) in by_kind.items()][:8]
        return warn(
            "labels have weights of their own",
            cause=f"relative weights: {', '.join(shown)}{where}. Nothing is wrong if the loss is weighted on purpose",
            measured={subject.label_text(kind): weight for kind, (weight, _) in by_kind.items()},
        )
    return warn(
        "tokens have weights of their own: custom loss?",
        cause=f"the weights of single tokens differ within rows and labels{where}; nothing is wrong if that is meant",
    )


@probe(
    "label-smoothing-as-set",
    group="loss and step",
    says="The loss has the label smoothing that the settings ask for, at labelled positions only.",
    loops=False,
)
def label_smoothing_as_set(subject: Subject) -> Finding:
    """Read the smoothing off the gradient of the logits.

    Fault: Smoothing reaches positions without a label, so that padding pulls the model to the uniform distribution. Or
    label_smoothing_factor is set and the loss has none.

    Causes: The smoothing term of a loss of your own is not masked. Or an overridden compute_loss replaces the one in
    which the Trainer smooths.

    Remedy: Use `cross_entropy(..., label_smoothing=0.1, ignore_index=-100)`, which masks both terms.

    Warning: The smoothing that is measured is not the one that is set: the loss is smoothed twice or elsewhere.
    """
    wanted = subject.settings.label_smoothing
    _, found, _ = _read(subject)
    where = f" ({subject.where['loss']})" if "loss" in subject.where else ""
    uniform = [each for each in found.values() if each.stray > SILENT and each.stray_uniform]
    if uniform:
        return fail(
            "label smoothing reaches positions without a label",
            cause=f"{uniform[0].strays} positions of a batch whose label is -100, such as padding, are pulled towards "
            f"the uniform distribution{where}: mask the smoothing term as well",
            measured=uniform[0].strays,
            expected=0,
        )
    reading = next(iter(found.values()))
    if reading.misfit > FITS:
        raise NotChecked("the loss is no cross-entropy of the labels, so its smoothing cannot be read")
    size = reading.smoothing
    if abs(size - wanted) < 0.005:
        return passed(
            f"label smoothing is {wanted:.3g}" if wanted else "there is no label smoothing, and none is set",
            measured=round(size, 4),
            expected=wanted,
        )
    if not wanted:
        return passed(f"the loss has a label smoothing of its own: {size:.3g}", measured=round(size, 4))
    if size < 0.005:
        return fail(
            f"label_smoothing_factor is {wanted:.3g}, but the loss has none",
            cause=f"a loss of one's own replaces the Trainer's smoothing{where}: pass label_smoothing={wanted:.3g} to "
            "cross_entropy there, or leave label_smoothing_factor at 0"
            if where
            else "the Trainer smooths the loss of an input called labels only: leave label_smoothing_factor at 0",
            measured=size,
            expected=wanted,
        )
    return warn(
        f"label smoothing is {size:.3g}, but {wanted:.3g} is set",
        cause=f"the loss is smoothed elsewhere, or twice{where}",
        measured=size,
        expected=wanted,
    )


@probe(
    "accumulation-divided",
    group="loss and step",
    says="The gradient of a step is that of a mean, however many micro-batches the step has.",
    loops=False,
)
def accumulation_divided(subject: Subject) -> Finding:
    """Compare one batch of equal rows with as many micro-batches of one row. No loss function is assumed.

    Fault: Gradients are as many times too large, or too small, as there are micro-batches in a step. Clipping and the
    learning rate act as if they were set otherwise.

    Causes: Too large: nobody divides. A loss of your own, or a head of transformers, ignores num_items_in_batch, while
    the Trainer leaves the division to it (transformers#47688). In a plain loop, `loss / n` is missing. Too small: your
    code divides, and so does `accelerator.backward` or the Trainer.

    Remedy: In compute_loss, divide the sum by `num_items_in_batch`. Or set `model.accepts_loss_kwargs = False` before
    the Trainer is made; it then divides itself. In a plain loop, call `(loss / n).backward()`; with Accelerate, do not
    divide.

    Warning: The gradient depends on how a step is cut, but in no simple ratio, or the number of micro-batches is not
    known. In loops, the loss may also be a sum or be scaled on purpose.
    """
    step = subject.need("step")
    row = single_rows(subject)[0][1]
    one = step([repeated(row, COPIES)]).gradients
    many = step([row] * COPIES).gradients
    related = relation(many, one)
    accumulation = subject.settings.accumulation
    if related.is_multiple(1):
        return passed(
            f"{COPIES} micro-batches of one row give the gradient of one batch of {COPIES}", measured=related.ratio
        )
    if related.misfit > 1e-3:
        again = relation(step([row] * COPIES).gradients, many)
        reason = "it is random" if not again.is_multiple(1) else "it depends on the batch as a whole"
        raise NotChecked(f"the loss is no mean over rows: {reason}")
    undivided, twice = related.is_multiple(COPIES), related.is_multiple(1 / COPIES)
    if twice and relation(one, step([row]).gradients).is_multiple(COPIES):
        raise NotChecked("the loss grows with the batch, so micro-batches cannot be compared with one batch")
    figures = f"{COPIES} micro-batches give {related.ratio:.3g} times the gradient of one batch of the same rows"
    if accumulation == 1:
        whose = f" ({ISSUE})" if undivided and "loss" not in subject.where else ""
        return passed(
            f"there is no accumulation; with it, gradients would be wrong{whose}: {figures}", measured=related.ratio
        )
    if not (undivided or twice):
        return warn(figures, cause="the gradient depends on how a step is cut", measured=related.ratio, expected=1.0)
    times = f"{accumulation}.0" if accumulation else "n"
    message = (
        f"accumulation is not divided, so that gradients are {times} times too large"
        if undivided
        else f"accumulation is divided twice, so that gradients are {times} times too small"
    )
    make = warn if accumulation is None else fail
    return make(message, cause=f"{figures}. {_blame(subject, row, undivided)}", measured=related.ratio, expected=1.0)


def _blame(subject: Subject, row: Batch, undivided: bool) -> str:
    """Say whose code is wrong, and what to change."""
    own = subject.where.get("loss")
    if not undivided:
        return (
            f"{own or 'The loss'} divides by the number of micro-batches, and so does the loop around it: divide once"
        )
    base = unadapted(subject.model)
    head = type(base).__name__
    library = subject.extra.get("library step")
    if library is None:
        return "Divide the loss of each micro-batch by their number, or the sum over the step by its labels"
    model = "model" if base is subject.model else "model.get_base_model()"
    setting = f"set `{model}.accepts_loss_kwargs = False` before the Trainer is made"
    if own is None and subject.settings.label_smoothing:
        return (
            f"The Trainer leaves the division to the model, because {head}.forward takes **kwargs, but the label "
            f"smoothing that takes the place of its loss ignores num_items_in_batch: {setting}, or update transformers"
        )
    if own is None:
        return (
            f"The Trainer leaves the division to the model, because {head}.forward takes **kwargs, and {head} ignores "
            f"num_items_in_batch ({ISSUE}): {setting}, or compute the loss with num_items_in_batch"
        )
    try:
        stock = relation(library([row] * COPIES).gradients, library([repeated(row, COPIES)]).gradients)
        innocent = stock.is_multiple(1)
    except NotChecked:
        innocent = False
    also = "" if innocent else f"; the loss of {head} itself ignores it too ({ISSUE})"
    return (
        f"{own} ignores num_items_in_batch, while the Trainer does not divide because {head}.forward takes **kwargs"
        f"{also}: divide the sum by num_items_in_batch (or hand it on to super().compute_loss), or {setting}"
    )


@probe(
    "micro-batches-weighted-by-labels",
    group="loss and step",
    says="A token counts the same in every micro-batch of a step, however many labels the micro-batch has.",
    loops=False,
)
def micro_batches_weighted_by_labels(subject: Subject) -> Finding:
    """Step on two micro-batches with few and many labels, and read the weight of each.

    Warning: A step is the mean of its micro-batches' means. A token in a micro-batch with few labels counts more than
    one with many, so the result depends on how the step is cut. The finding says by how much; for rows of like lengths
    it is harmless.

    Remedy: Divide the sum over the step by its number of labels. In `compute_loss(self, model, inputs, return_outputs,
    num_items_in_batch)`, use reduction='sum' and divide by num_items_in_batch.
    """
    accumulation = subject.settings.accumulation
    if accumulation == 1:
        return passed("a step is one batch")
    step = subject.need("step")
    rows = [batch for _, batch in single_rows(subject)]
    few, many = min(rows, key=label_count), max(rows, key=label_count)
    if label_count(many) < 1.2 * label_count(few):
        return passed(f"micro-batches have the same number of labels (about {label_count(few)})")
    done = step([few, many])
    weights = []
    for index in range(2):
        found = next(iter(readings(subject, done, index).values()))
        weight, misfit = found.common_weight()
        if found.misfit > FITS or misfit > UNIFORM or weight <= 0:
            raise NotChecked("the loss is no plain mean over labels, so the weights of micro-batches cannot be read")
        weights.append((weight, found.count))
    ratio = weights[0][0] / weights[1][0]
    (_, small), (_, large) = weights
    if abs(ratio - 1) < 0.02:
        return passed(f"a token counts the same in micro-batches of {small} and of {large} labels", measured=ratio)
    real = [label_count(batch) for batch in subject.need("train").batches(min(accumulation or 4, 8))]
    spread = max(real) / max(min(real), 1)
    return warn(
        f"a token of a micro-batch with {small} labels counts {ratio:.3g} times one of a micro-batch with {large}",
        cause="the step is a mean of the micro-batches' means, not the mean over its tokens"
        + (f" ({subject.where['loss']})" if "loss" in subject.where else "")
        + f". The first micro-batches of the run have {min(real)} to {max(real)} labels: up to {spread:.3g} times. "
        "Divide the sum by the step's number of labels (num_items_in_batch) to make it independent of the cut",
        measured=ratio,
        expected=1.0,
    )


@probe(
    "last-partial-step",
    group="loss and step",
    says="The micro-batches that are left at the end of an epoch take a step, which is divided by their number.",
    loops=False,
)
def last_partial_step(subject: Subject) -> Finding:
    """Step on one micro-batch where the settings announce more.

    Fault: The last step of an epoch has fewer micro-batches than the others, and is divided by the full number. Its
    gradient is too small.

    Causes: A loss divides by args.gradient_accumulation_steps, which is constant.

    Remedy: Divide by `self.current_gradient_accumulation_steps`, or by num_items_in_batch.

    Warning: In a loop, the last batches of an epoch take no step of their own: they are added to the next epoch's
    first step, are lost, or are divided by the full number. Step at the last batch too: `if (i + 1) % n == 0 or i + 1
    == len(loader)`.
    """
    accumulation = subject.settings.accumulation
    if accumulation is None:
        raise NotChecked("the number of micro-batches in a step is not known")
    if accumulation == 1:
        return passed("a step is one batch")
    train = subject.need("train")
    per_epoch = len(train) // (train.batch_size * subject.settings.world_size)
    if not train.drop_last and len(train) % (train.batch_size * subject.settings.world_size):
        per_epoch += 1
    left = per_epoch % accumulation
    steps = subject.settings.max_steps
    if not left or (steps is not None and steps * accumulation <= per_epoch - left):
        return passed("every step has all its micro-batches")
    step = subject.need("step")
    row = single_rows(subject)[0][1]
    related = relation(step([row], accumulation=accumulation).gradients, step([row], accumulation=1).gradients)
    if related.misfit > 1e-3:
        raise NotChecked("the loss is random, so that two steps cannot be compared")
    if related.is_multiple(1):
        return passed(f"the last step of an epoch has {left} of {accumulation} micro-batches and is divided by {left}")
    figures = f"the last step of an epoch has {left} of {accumulation} micro-batches, but"
    if related.is_multiple(1 / accumulation):
        return fail(
            f"{figures} is divided by {accumulation}",
            cause=f"its gradient is {left / accumulation:.3g} of what it should be"
            + (f" ({subject.where['loss']})" if "loss" in subject.where else "")
            + ": divide by the number of micro-batches in the step (current_gradient_accumulation_steps), or by "
            "num_items_in_batch, not by gradient_accumulation_steps",
            measured=related.ratio,
            expected=1.0,
        )
    return warn(
        f"{figures} one micro-batch gives {related.ratio:.3g} times its own gradient",
        measured=related.ratio,
        expected=1.0,
    )
