"""Parameters, gradients and AdamW's state in flat buffers: one call for the norm, one or two for the update, one to sum
over processes.

In bf16 the model computes with a rounded copy; the parameters proper, the gradients' sum and AdamW's moments stay in
float32 (Micikevicius et al. 2018, 3.1: https://arxiv.org/abs/1710.03740).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import AdamW

from touchstone.engines.ranks import Ranks
from touchstone.engines.training import Recipe
from touchstone.packed.lookup import Lookup


class Weights:
    """Takes over the parameters of a model.

    A large table that serves for looking up alone (no head is tied to it) is read and learns in few rows a step: the
    model looks them up in float32, and nothing but AdamW passes over all of it.

    Attributes:
        gradient: (N,) float32, of all trainable parameters; see `collect`.
        optimizer: AdamW over the flat buffers, for a schedule to set its learning rate, and its state to be saved and
            loaded.
    """

    def __init__(self, model: nn.Module, *, lookups: Sequence[Lookup], recipe: Recipe, dtype: torch.dtype) -> None:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        tables = {id(lookup.weight): lookup for lookup in lookups if not _shared(lookup, model)}
        # Tables first, then the other matrices: these decay, biases and the gains of normalization (vectors) do not.
        self._parameters = sorted(trained, key=lambda p: (id(p) not in tables, p.ndim < 2))
        matrices = sum(p.numel() for p in trained if p.ndim >= 2)
        size = sum(p.numel() for p in trained)
        self._dense = sum(p.numel() for p in trained if id(p) in tables)
        device = trained[0].device
        self.master = torch.empty(size, device=device)
        self.gradient = torch.zeros(size, device=device)
        self._masters, self._gradients = self._views(self.master), self._views(self.gradient)
        torch._foreach_copy_(self._masters, [p.detach() for p in self._parameters])
        dense = self.master[self._dense :]
        self._rounded = None if dtype == torch.float32 else dense.to(dtype)
        for lookup in lookups:
            if id(lookup.weight) in tables:
                lookup.dtype = dtype
        self._frozen = [(p, p.data, p.data.to(dtype)) for p in model.parameters() if not p.requires_grad]
        self._compute()
        place = {id(parameter): index for index, parameter in enumerate(self._parameters)}
        self._lookups = [(lookup, place[id(lookup.weight)]) for lookup in lookups]
        self._given: set[int] = set()
        self._touched: list[tuple[int, torch.Tensor]] = []
        self._summed = False
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

    def collect(self, *, first: bool) -> None:
        """Move what backward passes left at the parameters into `gradient`: over what is there if `first`, else on top.

        Few rows of a large table have a gradient: those of the last step are emptied, these are added. What this step
        has none for, a layer that was left out, has a gradient of zero.
        """
        grads = {index: p.grad for index, p in enumerate(self._parameters) if p.grad is not None}
        given, found = list(grads), list(grads.values())
        views = [self._gradients[index] for index in given]
        if first:
            torch._foreach_copy_(views, found)
            self._empty(filled=set(given))
        elif views:
            torch._foreach_add_(views, [gradient.float() for gradient in found])
        self._given.update(given)
        for index in given:
            self._parameters[index].grad = None
        for lookup, index in self._lookups:
            for ids, rows in lookup.found:
                self._gradients[index].index_add_(0, ids, rows.float())
                self._touched.append((index, ids))
            lookup.found.clear()

    def _empty(self, *, filled: set[int]) -> None:
        """Zeros where the last step left something and this one has put nothing."""
        for index in (set(range(len(self._parameters))) if self._summed else self._given) - filled:
            self._gradients[index].zero_()
        for index, ids in self._touched:
            if index not in filled:
                self._gradients[index].index_fill_(0, ids, 0.0)
        self._given, self._touched, self._summed = set(), [], False

    def add_up(self, ranks: Ranks) -> None:
        """Sum the gradients of all ranks. Which rows of a table the others touched is then anybody's guess."""
        ranks.add_up(self.gradient)
        self._summed = ranks.world > 1

    def step(self) -> None:
        """Clip and update, with the learning rate that is the optimizer's. The clipping factor is folded into the
        update."""
        self.optimizer.grad_scale = torch.clamp((self._norm() + 1e-6) / self._max_norm, min=1.0)  # type: ignore[attr-defined]
        self.optimizer.step()
        if self._rounded is not None:
            self._rounded.copy_(self.master[self._dense :])

    def _norm(self) -> torch.Tensor:
        """() of the gradient: of tables the rows that were touched, for all others are zero."""
        if self._summed or self.gradient.device.type != "cpu":  # a GPU reads all of it sooner than a host counts rows
            return _norm_of(self.gradient)
        norms = [_norm_of(self.gradient[self._dense :])]
        by_table: dict[int, list[torch.Tensor]] = {}
        for index, ids in self._touched:
            if self._gradients[index].storage_offset() < self._dense:
                by_table.setdefault(index, []).append(ids)
        for index, ids_of_table in by_table.items():
            rows = torch.unique(torch.cat(ids_of_table))
            norms.append(_norm_of(self._gradients[index].index_select(0, rows)))
        return _norm_of(torch.stack(norms))

    @contextmanager
    def in_full(self) -> Iterator[None]:
        """Within, the model has its parameters in float32, to be saved."""
        self._hold(self._masters)
        try:
            yield
        finally:
            self._compute()

    def release(self) -> None:
        """Give the model parameters of its own, in float32."""
        self._hold([view.clone() for view in self._masters])

    def _hold(self, values: Sequence[torch.Tensor]) -> None:
        """Give the model its parameters in full."""
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.data = value
        for parameter, value, _ in self._frozen:
            parameter.data = value

    def _compute(self) -> None:
        """Give the model what it computes with: tables in float32, all else rounded."""
        self._hold(self._masters)
        if self._rounded is None:
            return
        others = [p for p in self._parameters if p.data.storage_offset() >= self._dense]
        for parameter, value in zip(others, _split(self._rounded, others), strict=True):
            parameter.data = value
        for parameter, _, rounded in self._frozen:
            parameter.data = rounded

    def _views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        return _split(flat, self._parameters)


def _norm_of(tensor: torch.Tensor) -> torch.Tensor:
    """() on a host from dot products of a million numbers each. `vector_norm` adds one after the other in float32
    there: for twenty million it is wrong by a thousandth, and takes three times as long."""
    if tensor.device.type != "cpu":
        norm: torch.Tensor = torch.linalg.vector_norm(tensor)
        return norm
    return torch.stack([torch.dot(part, part) for part in torch.split(tensor.flatten(), 2**20)]).sum().sqrt()


def _split(flat: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    parts = torch.split(flat, [tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def _shared(lookup: Lookup, model: nn.Module) -> bool:
    """Whether another module computes with the table, too: a head that is tied to it."""
    return any(
        weight is lookup.weight
        for module in model.modules()
        if not isinstance(module, Lookup)
        for weight in module.parameters(recurse=False)
    )
