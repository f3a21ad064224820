"""Read a call of a model: its arguments by name, its logits and loss, copies of tensors, and random states."""

from __future__ import annotations

import contextlib
import copy
import inspect
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from touchstone.auditing.subject import Pull

if TYPE_CHECKING:
    from torch import nn

LOGITS_KEPT = 8_000_000
"""Numbers of a tensor of logits that are kept at most; only its first rows are kept if it has more."""


@dataclass
class Call:
    """What is needed to repeat one call of the model.

    Args:
        module: the module as it was called, wrappers included.
        arguments: positional arguments, with tensors copied.
        options: keyword arguments, with tensors copied.
        rng: the states of torch's random generators before it.
        modes: the training flags of the module and its parts.
        autocast: the device type and dtype of autocast around it, or None.
        pulls: its logits and their gradients, of the first rows, where the step is kept.
        outputs: references to its logits, by which a loss finds its call.
    """

    module: nn.Module
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    rng: tuple[Any, ...] = ()
    modes: tuple[bool, ...] = ()
    autocast: tuple[str, Any] | None = None
    pulls: dict[str, Pull] = field(default_factory=dict)
    outputs: tuple[weakref.ref[Any], ...] = ()


def unwrapped(module: Any) -> Any:
    """Return the model inside DistributedDataParallel, DataParallel and torch.compile."""
    while True:
        kind = type(module).__name__
        if kind in ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel"):
            module = module.module
        elif kind == "OptimizedModule":
            module = module._orig_mod
        else:
            return module


def named(module: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by the names of the model's forward; arguments that are None are left out."""
    try:
        bound = inspect.signature(unwrapped(module).forward).bind(*arguments, **options)
    except (TypeError, ValueError):
        bound = None
    given: dict[Any, Any] = dict(bound.arguments) if bound is not None else {**dict(enumerate(arguments)), **options}
    batch: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            batch.update(value)
        elif value is not None:
            batch[str(name)] = value
    return batch


def copied(value: Any) -> Any:
    """Return a copy of a nested value. Tensors are copied without their graph, outside of inference mode."""
    import torch

    if isinstance(value, torch.Tensor):
        with torch.inference_mode(False):
            return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(copied(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    with contextlib.suppress(Exception):
        return copy.copy(value)
    return value


def logits_of(output: Any) -> dict[str, Any]:
    """Return the logits of a model's output by name: `logits`, or `start_logits` and `end_logits`."""
    for names in (("logits",), ("start_logits", "end_logits")):
        found = {name: getattr(output, name, None) for name in names}
        if all(getattr(each, "ndim", 0) >= 2 for each in found.values()):
            return found
    if isinstance(output, Mapping):
        parts = list(output.values())
    else:
        parts = list(output) if isinstance(output, (tuple, list)) else [output]
    tensors = [each for each in parts if getattr(each, "ndim", 0) >= 2 and each.is_floating_point()]
    return {"logits": max(tensors, key=lambda each: each.ndim)} if tensors else {}


def references(output: Any) -> tuple[weakref.ref[Any], ...]:
    """Return references to the logits of an output, which do not keep them alive."""
    return tuple(weakref.ref(each) for each in logits_of(output).values())


def is_part(tensor: Any, outputs: tuple[weakref.ref[Any], ...]) -> bool:
    """Tell whether a tensor is one of some logits, or a view of one. The memory of logits that are gone is reused."""
    address = tensor.untyped_storage().data_ptr()
    return any(each is not None and each.untyped_storage().data_ptr() == address for each in (one() for one in outputs))


_VIEWS = ("View", "Reshape", "Transpose", "Permute", "Squeeze", "Slice", "Clone", "Alias", "Select", "T", "ToCopy")


def squashed(logits: Any) -> str:
    """Return `softmax`, `log-softmax` or `sigmoid` if a tensor was made by it, whatever its shape became, or ""."""
    node = logits.grad_fn
    for _ in range(12):
        if node is None:
            return ""
        name = node.name().removesuffix("Backward0").removesuffix("Backward1").removeprefix("Unsafe")
        found = {"Softmax": "softmax", "LogSoftmax": "log-softmax", "Sigmoid": "sigmoid"}.get(name)
        if found is not None:
            return found
        if not name.startswith(_VIEWS) or not node.next_functions:
            return ""
        node = node.next_functions[0][0]
    return ""


def watch_logits(output: Any) -> dict[str, Pull]:
    """Copy the first rows of the logits, and their gradients as soon as backward reaches them."""
    found = {}
    for name, logits in logits_of(output).items():
        if not logits.requires_grad:
            continue
        rows = max(1, LOGITS_KEPT // max(logits[0].numel(), 1))
        pull = found[name] = Pull(logits[:rows].detach().clone())
        logits.register_hook(partial(_add, pull, rows))
    return found


def _add(pull: Pull, rows: int, gradient: Any) -> None:
    pull.add(gradient[:rows].detach().clone())


def generator_states() -> tuple[Any, ...]:
    import torch

    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states += torch.cuda.get_rng_state_all()
    return tuple(states)


def autocast() -> tuple[str, Any] | None:
    import torch

    for device in ("cuda", "cpu"):
        if torch.is_autocast_enabled(device):
            return device, torch.get_autocast_dtype(device)
    return None


def norm(gradients: Any) -> Any:
    import torch

    found = [each.detach() for each in gradients if each is not None and not each.is_sparse]
    if not found:
        return 0.0
    return torch.linalg.vector_norm(torch.stack([each.float().norm().to(found[0].device) for each in found]))


def loss_of(output: Any) -> Any:
    """Return the loss that a model returned, or None."""
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None and isinstance(output, tuple):
        loss = next((each for each in output if getattr(each, "ndim", None) == 0), None)
    return loss if hasattr(loss, "detach") else None


_PREDICTIONS = ("predictions", "y_pred", "hypotheses", "preds", "prediction")
_REFERENCES = ("references", "y_true", "targets", "reference")


def predictions_and_references(
    signature: inspect.Signature, arguments: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Any, Any]:
    try:
        bound = signature.bind(*arguments, **options).arguments
    except TypeError:
        return None, None
    given = dict(bound)
    for value in bound.values():
        if isinstance(value, dict):
            given |= value  # names that **kwargs caught
    return (
        next((given[name] for name in _PREDICTIONS if name in given), None),
        next((given[name] for name in _REFERENCES if name in given), None),
    )
