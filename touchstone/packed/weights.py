"""Parameters, gradients and AdamW's state in flat buffers: one or two calls per step in place of hundreds.

All trainable parameters lie in `master`, all gradients at the same offsets in `gradient`, both in float32:

    |   large tables   |   other matrices   |   vectors   |
    |<----------- weight decay ------------>|             |
                       |<-- `_rounded`: bfloat16 copy --->|

The model's parameters are views of these buffers. In float32 all are views of `master`. In bfloat16 they are views of
`_rounded`, which every step refreshes; parameters, sums of gradients and AdamW's moments stay in float32 (Micikevicius
et al. 2018, 3.1: https://arxiv.org/abs/1710.03740). Large tables stay in float32 even then, because a batch reads few
of their rows; rounding the whole table would take longer than rounding these rows.

`gradient` is not zeroed between steps, because that would pass over the large tables once more. What a step has
written is remembered, and zeroed when the next step begins:

    collect(first=True)   copies dense gradients over the old ones; zeroes what the last step wrote and this one did not
    collect(first=False)  adds the gradients of another micro-batch
        both remember the parameters written (`_written`) and the rows of tables written (`_written_rows`)
    sum_over(ranks)       sums over processes; rows that others wrote are unknown here (`_written_everywhere`)
    step()                clips, updates `master`, refreshes `_rounded`; does not touch `gradient`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import AdamW

from touchstone.engines.ranks import Ranks
from touchstone.engines.training import Recipe
from touchstone.packed.modules import Lookup


class Weights:
    """Takes over the parameters of a model.

    Args:
        lookups: the model's `Lookup` modules. A table that only they use (no output layer is tied to it) is a large
            table of the picture above.
        dtype: float32 or bfloat16, the type that the model computes in.

    Attributes:
        master: (N,) float32, all trainable parameters.
        gradient: (N,) float32, their gradients; see `collect`.
        optimizer: AdamW over the flat buffers. A schedule sets its learning rate; its state can be saved and loaded.
    """

    def __init__(self, model: nn.Module, *, lookups: Sequence[Lookup], recipe: Recipe, dtype: torch.dtype) -> None:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        tables = {id(lookup.weight): lookup for lookup in lookups if not _is_tied(lookup, model)}
        # Matrices decay; vectors (biases and the gains of normalization) do not.
        self._parameters = sorted(trained, key=lambda p: (id(p) not in tables, p.ndim < 2))
        matrices = sum(p.numel() for p in trained if p.ndim >= 2)
        size = sum(p.numel() for p in trained)
        self._tables_end = sum(p.numel() for p in trained if id(p) in tables)
        device = trained[0].device
        self.master = torch.empty(size, device=device)
        self.gradient = torch.zeros(size, device=device)
        self._master_views = _views(self.master, self._parameters)
        self._gradient_views = _views(self.gradient, self._parameters)
        torch._foreach_copy_(self._master_views, [p.detach() for p in self._parameters])
        self._rounded = None if dtype == torch.float32 else self.master[self._tables_end :].to(dtype)
        for lookup in lookups:
            if id(lookup.weight) in tables:
                lookup.dtype = dtype
        # Parameters that are not trained: their values as they came, and in `dtype`.
        self._frozen = [(p, p.data, p.data.to(dtype)) for p in model.parameters() if not p.requires_grad]
        self._use_compute_values()
        index_of = {id(parameter): index for index, parameter in enumerate(self._parameters)}
        self._lookups = [(lookup, index_of[id(lookup.weight)]) for lookup in lookups]
        self._written: set[int] = set()
        self._written_rows: list[tuple[int, torch.Tensor]] = []
        self._written_everywhere = False
        self._max_norm = recipe.max_grad_norm
        parts = [(self.master[:matrices], self.gradient[:matrices], recipe.weight_decay)]
        if matrices < size:
            parts.append((self.master[matrices:], self.gradient[matrices:], 0.0))
        groups = []
        for values, gradient, decay in parts:
            flat = nn.Parameter(values)
            flat.grad = gradient
            groups.append({"params": [flat], "weight_decay": decay})
        self.optimizer = AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.epsilon, fused=True)

    # Gradients and steps ----------------------------------------------------------------------------------------------

    def collect(self, *, first: bool) -> None:
        """Move the gradients of a backward pass from the parameters and lookups into `gradient`.

        Args:
            first: this is the first micro-batch of a step, so its gradients replace what is there. Otherwise they are
                added. A parameter without a gradient (of a layer that was skipped) gets zeros.
        """
        grads = {index: p.grad for index, p in enumerate(self._parameters) if p.grad is not None}
        indices, found = list(grads), list(grads.values())
        views = [self._gradient_views[index] for index in indices]
        if first:
            torch._foreach_copy_(views, found)
            self._zero_leftovers(overwritten=set(indices))
        elif views:
            torch._foreach_add_(views, [gradient.float() for gradient in found])
        self._written.update(indices)
        for index in indices:
            self._parameters[index].grad = None
        for lookup, index in self._lookups:
            for ids, rows in lookup.gradients:
                self._gradient_views[index].index_add_(0, ids, rows.float())
                self._written_rows.append((index, ids))
            lookup.gradients.clear()

    def _zero_leftovers(self, *, overwritten: set[int]) -> None:
        """Zero what the last step wrote, except the parameters that this one has already overwritten."""
        written = set(range(len(self._parameters))) if self._written_everywhere else self._written
        for index in written - overwritten:
            self._gradient_views[index].zero_()
        for index, ids in self._written_rows:
            if index not in overwritten:
                self._gradient_views[index].index_fill_(0, ids, 0.0)
        self._written, self._written_rows, self._written_everywhere = set(), [], False

    def sum_over(self, ranks: Ranks) -> None:
        """Sum the gradients of all ranks."""
        ranks.add_up(self.gradient)
        self._written_everywhere = ranks.world > 1

    def step(self) -> None:
        """Clip the gradient and update the parameters, with the optimizer's current learning rate.

        The fused AdamW divides gradients by `grad_scale`, which applies the clipping factor without another pass.
        """
        self.optimizer.grad_scale = torch.clamp((self._norm() + 1e-6) / self._max_norm, min=1.0)  # type: ignore[attr-defined]
        self.optimizer.step()
        if self._rounded is not None:
            self._rounded.copy_(self.master[self._tables_end :])

    def _norm(self) -> torch.Tensor:
        """Compute the norm of the gradient, (). Only the written rows of large tables are read; all others are zero."""
        if self._written_everywhere or self.gradient.device.type != "cpu":  # a GPU reads all faster than it finds rows
            return _norm_of(self.gradient)
        norms = [_norm_of(self.gradient[self._tables_end :])]
        by_table: dict[int, list[torch.Tensor]] = {}
        for index, ids in self._written_rows:
            if self._gradient_views[index].storage_offset() < self._tables_end:
                by_table.setdefault(index, []).append(ids)
        for index, ids_of_table in by_table.items():
            rows = torch.unique(torch.cat(ids_of_table))
            norms.append(_norm_of(self._gradient_views[index].index_select(0, rows)))
        return _norm_of(torch.stack(norms))

    # The values of the model's parameters -----------------------------------------------------------------------------

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Give the model its float32 parameters inside the `with` block, to save them."""
        self._set_values(self._master_views)
        try:
            yield
        finally:
            self._use_compute_values()

    def release(self) -> None:
        """Give the model float32 parameters that do not share memory with the buffers."""
        self._set_values([view.clone() for view in self._master_views])

    def _use_compute_values(self) -> None:
        """Set the values to compute with: large tables in float32, all else in the compute type."""
        self._set_values(self._master_views)
        if self._rounded is None:
            return
        others = [p for p in self._parameters if p.data.storage_offset() >= self._tables_end]
        for parameter, value in zip(others, _views(self._rounded, others), strict=True):
            parameter.data = value
        for parameter, _, rounded in self._frozen:
            parameter.data = rounded

    def _set_values(self, values: Sequence[torch.Tensor]) -> None:
        """Set the trained parameters to `values`, and the frozen ones to the values they came with."""
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.data = value
        for parameter, value, _ in self._frozen:
            parameter.data = value


def _norm_of(tensor: torch.Tensor) -> torch.Tensor:
    """Compute the norm, (); on a CPU from dot products of a million numbers each.

    There `vector_norm` adds up one number after the other in float32: for twenty million numbers it is wrong by a
    thousandth, and takes three times as long.
    """
    if tensor.device.type != "cpu":
        norm: torch.Tensor = torch.linalg.vector_norm(tensor)
        return norm
    return torch.stack([torch.dot(part, part) for part in torch.split(tensor.flatten(), 2**20)]).sum().sqrt()


def _views(flat: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Split a flat buffer into views with the shapes of these tensors."""
    parts = torch.split(flat, [tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def _is_tied(lookup: Lookup, model: nn.Module) -> bool:
    """Check whether a module other than a `Lookup` uses the table, too, such as an output layer tied to it."""
    return any(
        weight is lookup.weight
        for module in model.modules()
        if not isinstance(module, Lookup)
        for weight in module.parameters(recurse=False)
    )
