"""Probes of the optimizer: what is trained, what is frozen, and tied weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from touchstone.auditing.adapters.trainer_step import logits_of
from touchstone.auditing.copies import copy_of
from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.steps import ragged_batch
from touchstone.auditing.reading.stuck import gradients_of_logits, stuck_at_zero
from touchstone.auditing.subject import Batch, Subject, quiet

if TYPE_CHECKING:
    from torch import Tensor, nn

GROUP = "optimizer and schedule"
MISSPELT = ("requires_grad", "require_grad", "required_grad", "requires_gradient", "require_gradient", "requiresGrad")
"""Attributes that people set on modules, or misspell on parameters, to freeze them. None of them freezes anything."""
NAMES_SHOWN = 4
STEPS = 3
"""Steps after the first one that a parameter may wait for its first gradient, such as an adapter behind two gates."""


def shown(names: Sequence[str]) -> str:
    """Return the first few names, and the number of the others."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def left_out(model: nn.Module, missing: Sequence[str]) -> Finding:
    """Return the finding about trainable parameters that no optimizer holds.

    An optimizer of the head alone is a common way to freeze the base model. One that lacks another part is a mistake.
    """
    table = {name: each.numel() for name, each in model.named_parameters() if each.requires_grad}
    share = sum(table.get(name, 0) for name in missing) / max(sum(table.values()), 1)
    message = f"{len(missing)} of {len(table)} trainable parameters are not in the optimizer"
    held = f"they hold {share:.0%} of the trainable numbers, get gradients and never change: {shown(missing)}"
    if is_the_base(model, missing):
        return warn(
            f"{message}: the whole base model",
            cause=f"{held}. If only the head is meant to learn, call requires_grad_(False) on the base model: its "
            "gradients cost time, and enter the norm that is clipped",
            measured=len(missing),
            expected=0,
        )
    return fail(
        message,
        cause=f"{held}. Put them into a parameter group, or freeze them with requires_grad_(False) if that is meant",
        measured=len(missing),
        expected=0,
    )


def is_the_base(model: nn.Module, names: Sequence[str]) -> bool:
    """Whether some trainable parameters are those of all pretrained models inside a model, and nothing else.

    Parameters that the head shares with them, such as tied embeddings, may be among them or not.
    """
    from transformers import PreTrainedModel

    bases: list[str] = []
    for name, module in model.named_modules():
        is_base = isinstance(module, PreTrainedModel) and module.base_model is module
        if name and is_base and not any(name.startswith(base) for base in bases):
            bases.append(f"{name}.")
    places: dict[int, list[str]] = {}
    for name, each in model.named_parameters(remove_duplicate=False):
        if each.requires_grad:
            places.setdefault(id(each), []).append(name)
    whole = {each[0] for each in places.values() if all(name.startswith(tuple(bases)) for name in each)}
    shared = {each[0] for each in places.values() if any(name.startswith(tuple(bases)) for name in each)}
    return bool(whole) and whole <= set(names) <= shared


def sizes(subject: Subject, names: Sequence[str]) -> float:
    """Return the share of the trainable numbers that some parameters hold."""
    table = {name: each.numel() for name, each in subject.need("model").named_parameters() if each.requires_grad}
    return float(sum(table.get(name, 0) for name in names) / max(sum(table.values()), 1))


@probe(
    "optimizer-holds-the-model",
    group=GROUP,
    says="Every trainable parameter is in the optimizer, once, and nothing is there in place of one.",
    loops=False,
)
def optimizer_holds_the_model(subject: Subject) -> Finding:
    """Compare the optimizer's parameters with the model's, by identity.

    Fault: Some trainable parameters never change, because the optimizer does not hold them. Or it holds those of
    another model, holds some twice, or everything is frozen.

    Causes: The optimizer is made before the model is copied, resized or replaced. Or it gets the parameters of one
    part only, or the groups overlap.

    Remedy: Make the optimizer last, from the model that is trained: `AdamW(model.parameters(), lr=...)`. Freeze parts
    by `requires_grad_(False)`.

    Warning: The whole base model is missing from the optimizer. That freezes it, but its gradients still cost time and
    enter the norm that is clipped.
    """
    model = subject.need("model")
    trainable = [name for name, each in model.named_parameters() if each.requires_grad]
    everything = sum(1 for _ in model.parameters())
    if not trainable:
        return fail(
            "everything is frozen: no parameter is trainable",
            cause=f"all {everything} parameters have requires_grad=False: leave at least the head trainable",
            measured=0,
        )
    copied = subject.quiet_model
    optimizer, _ = subject.need("optimizer")(copied)
    held = [each for group in optimizer.param_groups for each in group["params"]]
    if not held or "Dummy" in type(optimizer).__name__:
        raise NotChecked(f"the optimizer {type(optimizer).__name__} does not show its parameters")
    names = {id(each): name for name, each in copied.named_parameters()}
    known = [names[id(each)] for each in held if id(each) in names]
    foreign = [each for each in held if id(each) not in names]
    missing = [name for name in trainable if name not in set(known)]
    # A table that was resized keeps its width.
    shapes = {tuple(each.shape) for each in foreign}
    widths = {shape[1:] for shape in shapes if len(shape) > 1}
    own = {name: tuple(each.shape) for name, each in copied.named_parameters()}
    replaced = [name for name in missing if own[name] in shapes or (len(own[name]) > 1 and own[name][1:] in widths)]
    if replaced or (foreign and not known):
        return fail(
            f"{len(foreign)} of the optimizer's {len(held)} parameters are not the model's",
            cause=f"the optimizer was built for a model that was then copied, replaced or resized, so that "
            f"{len(missing)} trainable parameters ({sizes(subject, missing):.0%} of the numbers) never change, such as "
            f"{shown(missing)}: build the optimizer last, from the model that is trained",
            measured=len(foreign),
            expected=0,
        )
    if missing:
        return left_out(model, missing)
    twice = [name for name, count in Counter(known).items() if count > 1]
    if twice:
        return fail(
            f"{len(twice)} parameters are in the optimizer twice",
            cause=f"each step updates them twice, as if their learning rate were twice what is set: {shown(twice)}",
            measured=len(twice),
            expected=0,
        )
    frozen = everything - len(trainable)
    return passed(
        f"all {len(trainable)} trainable parameters are in the optimizer once"
        + (f"; {frozen} are frozen" if frozen else "")
    )


@probe(
    "frozen-parameters-stay-frozen",
    group=GROUP,
    says="What the code freezes is frozen, and a step does not change it.",
)
def frozen_parameters_stay_frozen(subject: Subject) -> Finding:
    """Look for attributes that freeze nothing, and for frozen parameters that get a gradient in a step.

    Fault: What the code means to freeze still trains.

    Causes: `module.requires_grad = False` is set on a module, or the attribute of a parameter is misspelt, such as
    require_grad. Both only create an attribute. Or something unfreezes parameters in training.

    Remedy: Call `module.requires_grad_(False)`, with the underscore.
    """
    model = subject.need("model")
    without_effect = [
        (f"{name or 'model'}.{attribute}", len(params))
        for name, module in model.named_modules()
        for attribute in MISSPELT
        if vars(module).get(attribute, True) is False
        and (params := [each for each in module.parameters() if each.requires_grad])
    ]
    without_effect += [
        (f"{name}.{attribute}", 1)
        for name, each in model.named_parameters()
        for attribute in MISSPELT[1:]
        if each.requires_grad and getattr(each, "__dict__", {}).get(attribute, True) is False
    ]
    if without_effect:
        return fail(
            f"`{without_effect[0][0]} = False` freezes nothing",
            cause=f"it only sets an attribute of that name: {sum(each for _, each in without_effect)} parameters stay "
            "trainable that are meant to be frozen. Call requires_grad_(False) on the module, or set requires_grad of "
            "each parameter",
            measured=sum(each for _, each in without_effect),
            expected=0,
        )
    frozen = {name for name, each in model.named_parameters() if not each.requires_grad}
    if not frozen:
        return passed("nothing is frozen")
    moved = sorted(frozen & set(_exercise(subject)["first"]))
    if moved:
        return fail(
            f"{len(moved)} frozen parameters get a gradient in a step",
            cause=f"the code unfreezes them while it trains: {shown(moved)}",
            measured=len(moved),
            expected=0,
        )
    return passed(f"{len(frozen)} frozen parameters get no gradient")


@probe(
    "every-parameter-learns",
    group=GROUP,
    says="Every trainable parameter that takes part in the forward pass gets a gradient.",
)
def every_parameter_learns(subject: Subject) -> Finding:
    """Take one or two steps on a copy, and look for parameters without a gradient.

    Fault: The loss is cut off from a part of the model, from the embeddings on, or parameters that are zero hold each
    other at zero. That part never learns although it is trainable.

    Causes: The encoder runs under `torch.no_grad()`, or its output is detached, read by `.data`, or sent through
    numpy. Or two factors of a product begin at zero, such as both matrices of a LoRA adapter, or a gate and the
    projection behind it: the gradient of each is the other.

    Remedy: Remove the no_grad or detach. If the part is meant to be frozen, say so with `requires_grad_(False)`. Let
    one of two factors begin with random numbers.

    Warning: Some parameters take no part in the loss, such as an unused head. Fine if they are not meant to be used.
    """
    done = _exercise(subject)
    silent: list[str] = done["silent"]
    trainable: list[str] = done["trainable"]
    if not silent:
        return passed(f"all {len(trainable)} trainable parameters get a gradient")
    share = sizes(subject, silent)
    stuck: list[str] = done["stuck"]
    if stuck:
        return fail(
            f"{len(silent)} of {len(trainable)} trainable parameters ({share:.0%} of the numbers) can never move",
            cause=f"{shown(stuck)} are all zero, and each holds back the gradient of the others: gradients are exactly "
            "zero in every step, but appear as soon as these are moved away from zero by hand. Let one of them begin "
            "with random numbers (LoRA: A random, B zero)",
            measured=len(silent),
            expected=0,
        )
    figures = f"{len(silent)} of {len(trainable)} trainable parameters ({share:.0%} of the numbers) get no gradient"
    if any(name in done["tables"] for name in silent):
        ungraded = [name for name in silent if name.rpartition(".")[0] in done["ungraded"]]
        how = (
            "the forward pass runs them without recording gradients (torch.no_grad, inference_mode)"
            if ungraded
            else "their output is detached before the loss (detach, .data, .item, numpy)"
        )
        return fail(
            figures,
            cause=f"the loss is cut off from them: {how}. They never learn, from the input embeddings on: "
            f"{shown(silent)}. Freeze them with requires_grad_(False) if that is meant",
            measured=len(silent),
            expected=0,
        )
    # The output of a pooler is not used by a token's head; tables of sines are constant.
    harmless = [
        name
        for name in silent
        if "pooler" in name or ("position" in name and name.rpartition(".")[0] in done["ungraded"])
    ]
    if len(harmless) == len(silent):
        return passed(f"all trainable parameters get a gradient but {shown(silent)}, which need none")
    return warn(
        figures,
        cause=f"they take no part in the loss: {shown(silent)}. Nothing is wrong if they are not meant to be used",
        measured=len(silent),
        expected=0,
    )


def _exercise(subject: Subject) -> dict[str, Any]:
    """Return what `_exercised` finds. Probes share it."""
    return subject.once("exercise", lambda: _exercised(subject))


def _exercised(subject: Subject) -> dict[str, Any]:
    """Take a step on a copy, and more if parameters got no gradient.

    Adapters and gates that begin at zero hold back the gradient of what is behind them in the first step; one inside
    another does so for longer. The result names the parameters without a gradient, those that hold each other back for
    ever, the tables that look up the input ids, and modules whose output records no gradient although they are
    trainable. (Position tables of sines are such modules by design.)
    """
    model = quiet(subject.need("model"))
    trainable = [name for name, each in model.named_parameters() if each.requires_grad]
    if subject.step is None and subject.steps:
        seen = {name: each for step in subject.steps for name, each in step.gradients.items()}
        first = {name: each for step in subject.steps for name, each in step.gradients.items() if _any(each)}
        if not set(seen) & set(trainable):
            raise NotChecked("the gradients of the observed steps are not those of the model's parameters")
        batch = subject.steps[0].batches[0]
        with _watched(model, batch) as (tables, ungraded), suppress(NotChecked):
            logits_of(model, batch)

        def again() -> dict[str, Tensor]:
            return gradients_of_logits(model, batch)
    else:
        batch = ragged_batch(subject)
        step = subject.need("step")
        with _watched(model, batch) as (tables, ungraded):
            seen = first = step([batch], model=model).gradients

        def again() -> dict[str, Tensor]:
            return dict(step([batch], model=model).gradients)

    learning = {name for name, each in first.items() if _any(each)}
    stuck: list[str] = []
    if set(trainable) - learning:
        with suppress(NotChecked):  # the model of a loop may not take its batch by name
            late = _waiting(model, first, again)
            learning |= late if subject.step is not None else late & set(seen)
            # What the loss does not reach has no gradient; what a zero holds back has one that is 0.
            stuck = stuck_at_zero(model, [name for name in seen if name not in learning], again)
    if not learning and not stuck:
        raise NotChecked("no parameter gets a gradient from a batch with labels: the loss is constant there")
    return {
        "first": first,
        "trainable": trainable,
        "silent": [name for name in trainable if name not in learning],
        "stuck": stuck,
        "tables": tables,
        "ungraded": ungraded,
    }


def _waiting(model: nn.Module, first: Mapping[str, Tensor], again: Callable[[], Mapping[str, Tensor]]) -> set[str]:
    """Return the names of parameters of a copy that get a gradient in steps after the first one."""
    gradients, found = first, {name for name, each in first.items() if _any(each)}
    for _ in range(STEPS):
        _move(model, gradients)
        gradients = again()
        more = {name for name, each in gradients.items() if _any(each)} - found
        found |= more
        if not more:
            break
    return found


def _move(model: nn.Module, gradients: Mapping[str, Tensor]) -> None:
    """Move parameters of a copy a little against their gradients."""
    import torch

    with torch.no_grad():
        for name, each in model.named_parameters():
            gradient = gradients.get(name)
            if gradient is not None and _any(gradient):
                gradient = gradient.to(each.dtype)
                each.sub_(1e-2 * gradient / gradient.norm().clamp(min=1e-12))


def _any(gradient: Tensor) -> bool:
    """Whether a gradient, dense or sparse, has an entry that is not 0."""
    return bool((gradient.coalesce().values() if gradient.is_sparse else gradient).any())


@contextmanager
def _watched(model: nn.Module, batch: Batch) -> Iterator[tuple[set[str], set[str]]]:
    """Collect the names of the tables that look up the input ids, and of trainable modules that record no gradient."""
    import torch

    tables: set[str] = set()
    ungraded: set[str] = set()
    ids = batch.get("input_ids")

    def watch(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            if ids is not None and isinstance(module, torch.nn.Embedding) and inputs:
                same = isinstance(inputs[0], torch.Tensor) and inputs[0].shape == ids.shape
                if same and torch.equal(inputs[0].cpu(), ids.cpu()):
                    tables.add(f"{name}.weight")
            own = [each for each in module._parameters.values() if each is not None and each.requires_grad]
            if own and isinstance(output, torch.Tensor) and output.is_floating_point() and not output.requires_grad:
                ungraded.add(name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        yield tables, ungraded
    finally:
        for handle in handles:
            handle.remove()


@probe(
    "tied-weights-stay-tied",
    group=GROUP,
    says="Input and output embeddings are one tensor if the configuration ties them.",
    budget="fast",
)
def tied_weights_stay_tied(subject: Subject) -> Finding:
    """Compare input and output embeddings by identity.

    Fault: The configuration ties input and output embeddings, but they are two tensors. They train apart, and loading
    the saved model overwrites one by the other.

    Causes: The output layer or the embeddings were replaced by a new module after the model was made.

    Remedy: Call `model.tie_weights()` after the replacement, or set `model.config.tie_word_embeddings = False`.
    """
    model = subject.need("model")
    config = getattr(model, "config", None)
    config = getattr(config, "get_text_config", lambda **_: config)()
    if not getattr(config, "tie_word_embeddings", False):
        return passed("the configuration ties no weights")
    try:
        table, head = model.get_input_embeddings(), model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        table = head = None
    first, second = getattr(table, "weight", None), getattr(head, "weight", None)
    if first is None or second is None:
        return passed("the model has no output embeddings to tie")
    if any(hasattr(each, "modules_to_save") or hasattr(each, "base_layer") for each in (table, head)):
        return passed("an adapter replaces the embeddings on purpose")
    if first is second or (first.data_ptr() == second.data_ptr() and first.numel()):
        return passed("input and output embeddings are one tensor")
    if not _would_tie(model):
        return passed(f"{type(model).__name__} does not tie its embeddings, whatever the configuration says")
    return fail(
        "input and output embeddings are two tensors, though the configuration ties them",
        cause=f"config.tie_word_embeddings is True, but one of the two ({tuple(first.shape)}, {tuple(second.shape)}) "
        "was replaced: they train apart, and loading the saved model overwrites one by the other. Call "
        "model.tie_weights() after the replacement, or set config.tie_word_embeddings = False",
        measured=False,
        expected=True,
    )


def _would_tie(model: Any) -> bool:
    """Whether `tie_weights`, which loading calls, makes one tensor of input and output embeddings, in a copy."""
    try:
        copied: Any = copy_of(model)
        copied.tie_weights()
        return copied.get_input_embeddings().weight is copied.get_output_embeddings().weight
    except Exception:
        return False
