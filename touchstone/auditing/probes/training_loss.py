"""Probe of the training loss that a Trainer logs."""

from __future__ import annotations

import math

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.steps import single_rows
from touchstone.auditing.subject import Step, Stepper, Subject

COPIES = 3
"""Micro-batches of the step: three, so that 1/3, 1 and 3 are far apart."""
CLOSE = 1e-3
"""Relative difference up to which two losses are the same: float32 leaves about 1e-6."""


@probe(
    "training-loss-as-trained",
    group="loss and step",
    says="The training loss that is reported is the loss that is trained on.",
    loops=False,
)
def training_loss_as_trained(subject: Subject) -> Finding:
    """Compare the loss that one step reports with the sum of the values on which it calls backward.

    Fault: The training loss in the log is a multiple of the loss that is trained on. The curve has the right form, but
    cannot be compared with an evaluation loss, another run, or the same run with other micro-batches.

    Causes: The loss is divided by the number of micro-batches before it is added up for the report, or is added up
    over micro-batches and divided by the number of steps. A training_step of your own returns another value than the
    one that it calls backward on.

    Remedy: Report the mean of the losses of micro-batches, before they are divided. In a Trainer, return the value
    that backward is called on, detached.

    Warning: Only a part of the loss is reported, or a loop prints a loss after it is divided for the accumulation, or
    the sum over micro-batches. Training is right; the number cannot be compared with other losses.
    """
    stepper: Stepper = subject.need("step")
    accumulation = subject.settings.accumulation or 1
    parts = COPIES if accumulation > 1 else 1
    row = single_rows(subject)[0][1]
    step: Step = stepper([row] * parts)
    if not step.reported:
        raise NotChecked("the step reports no loss")
    logged, trained = sum(step.reported), sum(step.losses)
    if not (math.isfinite(logged) and math.isfinite(trained)) or not trained:
        raise NotChecked(f"the loss of a step is {trained:g}, and {logged:g} is reported")
    ratio = logged / trained
    own = subject.where.get("training_step", "")
    where = f" ({own})" if own else ""
    if abs(ratio - 1) <= CLOSE:
        return passed("the loss that is logged is the loss that is trained on", measured=ratio, expected=1.0)
    for factor, direction in ((parts, "large"), (1 / parts, "small")):
        if parts > 1 and abs(ratio / factor - 1) <= CLOSE:
            how = "not divided" if factor > 1 else "divided once more"
            return fail(
                f"the training loss that is logged is {accumulation}.0 times too {direction}",
                cause=f"the Trainer adds up what training_step returns for the {accumulation} micro-batches of a step, "
                f"but the loss that it returns is {how}, unlike the one that backward is called on{where}: return the "
                "value that backward is called on, detached",
                measured=ratio,
                expected=1.0,
            )
    return warn(
        f"the training loss that is logged is {ratio:.4g} times the loss that is trained on",
        cause=f"training_step returns another value than the one that backward is called on{where}; if only a part of "
        "the loss is meant to be logged, nothing is wrong",
        measured=ratio,
        expected=1.0,
    )
