"""Probes of training and evaluation mode: dropout on and off."""

from __future__ import annotations

from typing import Any

from touchstone.auditing.adapters.evaluated import EvaluationRecord
from touchstone.auditing.copies import copy_of
from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.scored import SMALL
from touchstone.auditing.subject import Subject

GROUP = "mode"
ROWS = 2
SAME = 1e-4
"""Logits of two passes that agree relatively within this are equal: kernels may add up in another order; dropout moves
them by a hundred times as much."""
TWICE = 1e-7
"""Losses of two runs of the same float32 computation on one machine agree relatively within this."""


RATES = ("p", "dropout", "dropout_p", "dropout_prob", "attention_dropout", "activation_dropout")
"""Attributes of modules that hold a dropout rate. Some models (Marian, BART) drop out without a dropout module."""


def dropouts(model: Any) -> dict[str, float]:
    """Return the rate of each module with dropout whose rate is positive, by name."""
    found = {}
    for name, module in model.named_modules():
        rates = [getattr(module, each, 0.0) for each in RATES]
        rate = max((each for each in rates if isinstance(each, float)), default=0.0)
        if 0.0 < rate < 1.0:
            found[name] = rate
    return found


def _outputs(subject: Subject, *, training: bool) -> tuple[Any, Any]:
    """Run a copy of the model, as the user set it, twice on two rows, and return the two logits."""
    import torch

    train = subject.need("train")
    batch = train.batch() if subject.trace is not None else train.batch(train.rows(ROWS))
    model = copy_of(subject.need("model")).train(training)
    device = next(model.parameters()).device
    batch = {key: value.to(device) if hasattr(value, "to") else value for key, value in batch.items()}
    try:
        with torch.no_grad():
            found = [_first_tensor(model(**batch)) for _ in range(2)]
    except TypeError as error:
        raise NotChecked(f"the model does not take the batch as it is ({error}): the loss calls it") from error
    return found[0], found[1]


def _first_tensor(output: Any) -> Any:
    logits = getattr(output, "logits", None)
    if logits is not None:
        return logits
    values = output.values() if hasattr(output, "values") else output if isinstance(output, (tuple, list)) else [output]
    tensors = [value for value in values if hasattr(value, "dim")]
    if not tensors:
        raise NotChecked(f"the model returns {type(output).__name__}, without a tensor")
    return max(tensors, key=lambda each: each.numel())


@probe(
    "dropout-on-in-training",
    group=GROUP,
    says="Dropout is on in a training step, also after an evaluation.",
    loops=False,
)
def dropout_on_in_training(subject: Subject) -> Finding:
    """Run one training step on a copy that an evaluation left in evaluation mode, and look at its dropout modules.

    Fault: The model trains in evaluation mode, without dropout: always, or after the first evaluation.

    Causes: `from_pretrained` returns a model in evaluation mode, and model.train() is never called. Or it is called
    once before the loop, and an evaluation switches it off. In a Trainer, an overridden training_step leaves it out.

    Remedy: Call `model.train()` at the start of each epoch, or of training_step.

    Warning: Some modules are in evaluation mode, which is right for frozen parts only. Or the model is in training
    mode and nothing is dropped.
    """
    import torch

    model = subject.need("model")
    rates = dropouts(model)
    first, second = _outputs(subject, training=True)
    random = not torch.equal(first, second)
    if not rates and not random:
        return passed("the model has no dropout: every rate is 0")
    step = subject.extra.get("training_modules")
    if step is None:
        raise NotChecked("a training step cannot be run on a copy")
    flags = step()
    watched = [name for name in flags if name in rates] or list(flags)
    off = [name for name in watched if not flags[name]]
    if not watched:
        raise NotChecked("the training step does not call the model")
    if not off:
        if random:
            return passed(f"{len(watched)} modules run in training mode; two passes over one batch differ")
        return warn(
            "the model is in training mode, but two passes over one batch are equal",
            cause=f"dropout rates are {sorted(set(rates.values()))}, but nothing is dropped",
        )
    trained = {name.rpartition(".")[0] for name, part in model.named_parameters() if part.requires_grad}
    wrong = [name for name in off if any(each.startswith(name.split(".")[0]) for each in trained)]
    if not wrong:
        return passed(f"{len(watched) - len(off)} dropout modules are on; {len(off)} in frozen parts are off")
    if len(off) == len(watched):
        return fail(
            f"dropout is off in training: {len(off)} of {len(watched)} modules run in evaluation mode",
            cause="an evaluation leaves the model in evaluation mode, and the training step does not call "
            "model.train(): call it at the start of training_step",
            measured=len(off),
            expected=0,
        )
    return warn(
        f"{len(off)} of {len(watched)} dropout modules are off in training, such as {off[0]}",
        cause="a part of the model is put into evaluation mode in training; that is right for frozen parts only",
    )


@probe(
    "dropout-off-in-evaluation",
    group=GROUP,
    says="Dropout is off in an evaluation.",
    loops=False,
)
def dropout_off_in_evaluation(subject: Subject) -> Finding:
    """Run the model twice in evaluation mode, and look at the training flags of its modules in an evaluation.

    Fault: The evaluation runs with dropout. Scores are too low and differ each time.

    Causes: `model.eval()` is missing, something calls model.train() within the evaluation, or a forward calls
    `functional.dropout` without `training=self.training` (transformers#33844 is of this kind).

    Remedy: Call `model.eval()` before the evaluation and `model.train()` after it. Pass `training=self.training` to
    functional dropout.
    """
    rates = dropouts(subject.need("model"))
    random = random_in_evaluation(subject)
    if random is not None:
        return random
    if subject.evaluate is None:
        return passed("two passes over one batch in evaluation mode are equal")
    record: EvaluationRecord = subject.evaluate(SMALL, quiet=False)
    on = [name for name in record.training if name in rates]
    if on:
        return fail(
            f"{len(on)} dropout modules run in training mode in the evaluation, such as {on[0]}",
            cause="the evaluation does not call model.eval(), or something calls model.train() in it: look at the "
            "overridden evaluate, evaluation_loop or prediction_step",
            measured=len(on),
            expected=0,
        )
    record.need()
    if not rates:
        return passed("the model has no dropout; two passes over one batch in evaluation mode are equal")
    return passed(f"{len(rates)} dropout modules are off in the evaluation")


def random_in_evaluation(subject: Subject) -> Finding | None:
    """Return a fault if two passes of a copy in evaluation mode over one batch differ."""
    import torch

    try:
        first, second = _outputs(subject, training=False)
    except NotChecked:
        raise
    except Exception as error:
        raise NotChecked(f"the model cannot be called on a batch by its names: {error}") from error
    if torch.equal(first, second) or float((first - second).abs().max()) <= SAME * float(first.abs().max()):
        return None
    return fail(
        "two passes over one batch in evaluation mode differ",
        cause="something random is on although model.eval() was called: pass training=self.training to "
        "functional.dropout, or do not call train() in forward (transformers#33844 is of this kind)",
        measured=float((first - second).abs().max()),
        expected=0.0,
    )


@probe(
    "evaluation-twice-equal",
    group=GROUP,
    says="An evaluation gives the same result when it is run twice.",
)
def evaluation_twice_equal(subject: Subject) -> Finding:
    """Run the evaluation of a few rows twice, without putting random generators back in between.

    Warning: Two evaluations of the same model differ. Something is drawn anew each time: masks, an order, or sampled
    text. A part of the difference between two checkpoints is then chance; the finding gives its size and source.

    Remedy: Mask or sample the evaluation data once, with a seeded generator. For generation, set `do_sample=False`.
    """
    evaluate = subject.need("evaluate")
    first: EvaluationRecord = evaluate(SMALL, quiet=False).need()
    second: EvaluationRecord = evaluate(SMALL, quiet=False, again=True).need()
    one, two = ({**each.scores(), **_losses(each)} for each in (first, second))
    moved = [
        name
        for name in one
        if name in two and abs(one[name] - two[name]) > TWICE * max(1.0, abs(one[name])) and one[name] == one[name]
    ]
    if not moved:
        return passed(f"two evaluations give the same {', '.join(sorted(one)) or 'result'}")
    on = [name for name in first.training if name in dropouts(subject.need("model"))]
    if on:
        raise NotChecked("dropout is on in the evaluation: see dropout-off-in-evaluation")
    text = "; ".join(f"{name} {one[name]:.4f} and then {two[name]:.4f}" for name in moved[:3])
    return warn(
        f"two evaluations differ: {text}",
        cause=_why(first, second),
        measured={name: two[name] for name in moved},
        expected={name: one[name] for name in moved},
    )


def _losses(record: EvaluationRecord) -> dict[str, float]:
    return {
        key: value for key, value in record.metrics.items() if key.endswith("loss") and isinstance(value, (int, float))
    }


def _why(first: EvaluationRecord, second: EvaluationRecord) -> str:
    """Return why two evaluations differ, by what the model received."""
    import torch

    for one, two in zip(first.predictions, second.predictions, strict=False):
        for key, value in one.batch.items():
            other: Any = two.batch.get(key)
            if hasattr(value, "shape") and (value.shape != other.shape or not torch.equal(value, other)):
                return (
                    f"{key} is drawn anew in each evaluation, by a random collator or another order of the rows: part "
                    "of the difference between two checkpoints is chance; fix it once (a mask made by map, or a "
                    "seeded generator)"
                )
    if any(given.get("do_sample") for given in first.generations):
        return "generate samples: results differ from run to run; set do_sample=False for an evaluation"
    return "the model receives the same batches: something random is left in the model, the search or the metric"


@probe(
    "evaluation-changes-nothing",
    group=GROUP,
    says="An evaluation changes no parameter, and leaves no gradient.",
)
def evaluation_changes_nothing(subject: Subject) -> Finding:
    """Compare the model before and after an evaluation, and look for gradients.

    Fault: The evaluation changes parameters or buffers, or leaves gradients that the next training step adds to its
    own.

    Causes: backward or an optimizer step is called in the evaluation, or batch statistics are updated in it.

    Remedy: Evaluate in `model.eval()` and under `torch.no_grad()`; do not call backward there.

    Warning: The evaluation records a graph that is not used. It costs memory: wrap it in `torch.no_grad()`.
    """
    record: EvaluationRecord = subject.need("evaluate")(SMALL, quiet=False)
    if record.changed:
        return fail(
            f"an evaluation changes {len(record.changed)} parameters or buffers, such as {record.changed[0]}",
            cause="the model learns from the evaluation data: take no optimizer step and no batch statistics in it",
            measured=record.changed[:10],
            expected=[],
        )
    record.need()
    if record.leftover:
        return fail(
            "an evaluation leaves gradients in the parameters",
            cause="backward is called in the evaluation, and the next training step adds to these gradients: compute "
            "the loss under torch.no_grad()",
        )
    if record.gradient:
        return warn(
            "the evaluation computes its loss with a graph",
            cause="gradients are recorded and not used, which costs memory: use torch.no_grad()",
        )
    return passed("an evaluation changes no parameter, and leaves no gradient")
