"""Find parameters that are zero and hold each other at zero, such as both matrices of an adapter.

The gradient of one factor of a product is the other factor. If both are zero, both gradients are exactly zero, whatever
the data and the loss are, and no step changes that. A parameter that takes no part in the loss has no gradient either,
but it gets none when it is moved by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from touchstone.auditing.adapters.trainer_step import logits_of
from touchstone.auditing.subject import Batch

if TYPE_CHECKING:
    from torch import Tensor, nn

NUDGE = 0.05
"""Standard deviation of the numbers that zeros are replaced by, about that of fresh weights."""
ROUNDING = 1e-5
"""Gradients smaller than this part of the largest may be rounding, such as those of a key's bias, which are 0."""


def stuck_at_zero(model: nn.Module, silent: Sequence[str], gradients: Callable[[], Mapping[str, Tensor]]) -> list[str]:
    """Return the names of parameters that are all zero, have no gradient, and get one as soon as they are not zero.

    A part of the model that was not chosen, such as an expert, is not stuck: it might be chosen only because the part
    that chooses was moved. So the parameters that got a gradient are moved again, alone.

    Args:
        model: a copy of the model, which is the same afterwards.
        silent: the names of parameters without a gradient.
        gradients: computes gradients of the copy by name.
    """
    table = dict(model.named_parameters())
    moved = [name for name in silent if name in table and not bool(table[name].any())]
    for _ in range(2):
        if not moved:
            break
        with _nudged([table[name] for name in moved]):
            found = {name: float(each.detach().float().norm()) for name, each in gradients().items()}
        floor = ROUNDING * max(found.values(), default=0.0)
        moved = [name for name in moved if found.get(name, 0.0) > floor]
    return moved


@contextmanager
def _nudged(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Put small random numbers in place of zeros within the block. No random generator of the run is used."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in parameters:
            each.copy_(NUDGE * torch.randn(each.shape, generator=generator))
    try:
        yield
    finally:
        with torch.no_grad():
            for each in parameters:
                each.zero_()


def gradients_of_logits(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the gradients of a random sum of a model's logits. What has none there has none for any loss of them.

    Raises:
        NotChecked: the model cannot be called with the batch.
    """
    import torch

    found = logits_of(model, batch)
    generator = torch.Generator().manual_seed(1)
    outputs = list(found.values()) if isinstance(found, dict) else [found]
    total = sum((each * torch.randn(each.shape, generator=generator).to(each)).sum() for each in outputs)
    named = {name: each for name, each in model.named_parameters() if each.requires_grad}
    made = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {name: each for name, each in zip(named, made, strict=True) if each is not None}
