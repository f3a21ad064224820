"""The body of a model, recorded once a size and then played: a GPU computes a small batch in less time than a host
needs to ask for it, operator by operator.

A recording (a CUDA graph: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs) repeats the same kernels on
the same memory. So batches are filled up to one of a few sizes (see `Segments`), and copied to where the recording
reads. Large tables, the last layers, the loss and the optimizer are not
recorded: these are few calls, and what they do depends on the task.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from touchstone.packed.fixed import FixedSegments, NotRecordable
from touchstone.packed.layout import Layout, active, laid_out
from touchstone.packed.lookup import Lookup

LEAST_STEP = 16
"""Tokens from one size to the next at least."""
MOST_TOKENS = 8192
"""A batch of more is computed for longer than it takes to ask for it."""
MOST_SIZES = 32
"""Recordings of a model: each holds on to the memory of what it gives."""
WARM_UP = 3
"""Passes before a recording, in which libraries make ready what they need: as many as torch's own recorder takes."""
SOURCE_TOKENS, TARGET_TOKENS = ("input_ids", "token_type_ids", "position_ids"), ("decoder_input_ids",)
"""What a body is given a number a token of."""

Pass = Callable[[], None]
Recorder = Callable[[Pass, Pass], tuple[Pass, Pass]]
"""Of two passes that work on tensors that stay where they are, forward and backward, two that repeat what these did."""


def recorder_on(device: torch.device) -> Recorder | None:
    """None where to ask for an operator costs little beside computing it."""
    return CudaGraphs() if device.type == "cuda" else None


class CudaGraphs:
    """Records what passes ask of a GPU. All recordings share their memory: one is played at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, forward: Pass, backward: Pass) -> tuple[Pass, Pass]:
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            for _ in range(WARM_UP):
                forward()
                backward()
        torch.cuda.synchronize()
        graphs = []
        for asked in (forward, backward):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                asked()
            graphs.append(graph)
        return graphs[0].replay, graphs[1].replay


def size_of(tokens: int) -> int:
    """What a batch of so many tokens is filled up to: one of four sizes to each power of two.

    >>> [size_of(tokens) for tokens in (1, 16, 17, 300, 2049, 8193)]
    [16, 16, 32, 320, 2560, 8193]
    """
    if tokens > MOST_TOKENS:
        return tokens
    step = max(1 << max((tokens - 1).bit_length() - 3, 0), LEAST_STEP)
    return -(-tokens // step) * step


class Recordings:
    """Takes over the `forward` of a model's body while it trains on packed batches; see `Unpadded.record`."""

    def __init__(self, model: PreTrainedModel, *, rows: int, recorder: Recorder) -> None:
        self.body: Any = model.base_model
        self.forward = self.body.forward
        self.rows, self.recorder = rows, recorder
        self.gradients: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._signature = inspect.signature(self.forward)
        self._made: dict[tuple[int, ...], Recording] = {}
        # T5 has no body apart from its head; layers that are left out at random are another model each time.
        drops_layers = any(getattr(module, "layerdrop", 0) for module in self.body.modules())
        self._refused = self.body is model or drops_layers
        if not self._refused:
            self.body.forward = self._run

    def remove(self) -> None:
        self.body.__dict__.pop("forward", None)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        layout = active()
        if layout is not None and self.body.training and torch.is_grad_enabled():
            given = self._signature.bind(*args, **kwargs).arguments
            given |= given.pop("kwargs", {})
            if (recording := self._of(layout, given)) is not None:
                return recording.play(given, layout)
        return self.forward(*args, **kwargs)

    def _of(self, layout: Layout, given: Mapping[str, Any]) -> Recording | None:
        """None: batches like this one are not recorded."""
        sizes = tuple(part.tokens for part in (layout.source, layout.target) if part is not None)
        if self._refused or max(sizes) > MOST_TOKENS or len(layout.source.mask) > self.rows:
            return None
        if sizes not in self._made and len(self._made) < MOST_SIZES:
            try:
                self._made[sizes] = Recording(self, given, sizes=sizes)
            except NotRecordable:
                self._refused = True
            except RuntimeError as error:  # of CUDA: without recordings a step is slower, and as right
                warnings.warn(f"CUDA could not record {type(self.body).__name__}: {error}", stacklevel=2)
                self._refused = True
        return self._made.get(sizes)


class Recording:
    """Of one size: tensors that stay where they are, and two passes over them."""

    def __init__(self, owner: Recordings, given: Mapping[str, Any], *, sizes: tuple[int, ...]) -> None:
        self._owner = owner
        device = given["input_ids"].device
        parts = [FixedSegments.of(size=size, rows=owner.rows + 1, device=device) for size in sizes]
        self._parts, self._layout = parts, Layout(parts[0], parts[1] if len(parts) > 1 else None)
        self._tokens: dict[str, torch.Tensor] = {}
        constants: dict[str, Any] = {}
        for name, value in given.items():
            if name in SOURCE_TOKENS + TARGET_TOKENS and value is not None:
                self._tokens[name] = value.new_zeros((1, parts[name in TARGET_TOKENS].size))
            elif name == "attention_mask" and value is not None:  # see `Unpadded`: nobody reads it
                constants[name] = parts[0].positions.view(1, 1, 1, -1)
            elif any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(value)):
                raise NotRecordable(f"it is given {name}")
            else:
                constants[name] = value
        self._arguments = constants | self._tokens
        # What is looked up in large tables is handed in, and its gradient out: see `Lookup`.
        self._tables = {name: table for name in self._tokens if (table := _large_table(owner.body, name)) is not None}
        handed = {table.weight for table in self._tables.values()}
        if any(isinstance(module, Lookup) and module.weight not in handed for module in owner.body.modules()):
            raise NotRecordable("it looks more than tokens up in large tables")
        self._rows = {
            name: torch.zeros(
                *self._tokens[name].shape,
                table.embedding_dim,
                dtype=table.dtype or table.weight.dtype,
                device=device,
                requires_grad=True,
            )
            for name, table in self._tables.items()
        }
        self._parameters = [p for p in owner.body.parameters() if p.requires_grad and p not in handed]
        self._learning: list[torch.nn.Parameter] = []
        self._row_gradients: list[torch.Tensor] = []
        self._trigger = torch.zeros((), device=device, requires_grad=True)
        self._record(device)

    def _record(self, device: torch.device) -> None:
        state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        try:
            self._forward()
            self._gradient = torch.zeros_like(self._output)
            self._backward()
            self._play_forward, self._play_backward = self._owner.recorder(self._forward, self._backward)
        finally:
            if state is not None:  # what is dropped must not depend on which sizes were met before
                torch.cuda.set_rng_state(state, device)

    # The passes that are recorded -------------------------------------------------------------------------------------

    def _forward(self) -> None:
        for name, table in self._tables.items():
            table.handed.append(self._rows[name])
        try:
            with torch.enable_grad(), laid_out(self._layout):
                given = self._owner.forward(**self._arguments)
            if any(table.handed for table in self._tables.values()):
                raise NotRecordable("it does not look its tokens up")
        finally:
            for table in self._tables.values():
                table.handed.clear()
        self._kind: type[ModelOutput] = type(given)
        self._output: torch.Tensor = given["last_hidden_state"]

    def _backward(self) -> None:
        sought = [*self._rows.values(), *self._parameters]
        found = torch.autograd.grad(self._output, sought, self._gradient, allow_unused=True)
        self._row_gradients = [gradient for gradient in found[: len(self._rows)] if gradient is not None]
        learnt = {p: g for p, g in zip(self._parameters, found[len(self._rows) :], strict=True) if g is not None}
        # All recordings leave them in one place, or each would hold as much memory as the model.
        places = self._owner.gradients
        places |= {p: torch.empty_like(gradient) for p, gradient in learnt.items() if p not in places}
        self._learning = list(learnt)
        torch._foreach_copy_([places[p] for p in learnt], list(learnt.values()))

    # A batch ----------------------------------------------------------------------------------------------------------

    def play(self, given: Mapping[str, Any], layout: Layout) -> ModelOutput:
        """What the body returns for a batch, its last hidden state alone."""
        parts = [part for part in (layout.source, layout.target) if part is not None]
        for fixed, part in zip(self._parts, parts, strict=True):
            fixed.take(part)
        for name, place in self._tokens.items():
            place.copy_(given[name])
        rows = [table(given[name]) for name, table in self._tables.items()]
        hidden: torch.Tensor = _Play.apply(self, self._trigger, *rows)  # type: ignore[no-untyped-call]
        return self._kind(last_hidden_state=hidden)

    def play_forward(self, rows: tuple[torch.Tensor, ...]) -> torch.Tensor:
        for place, row in zip(self._rows.values(), rows, strict=True):
            place.copy_(row)
        self._play_forward()
        return self._output.detach()

    def play_backward(self, gradient: torch.Tensor) -> list[torch.Tensor]:
        self._gradient.copy_(gradient)
        self._play_backward()
        for parameter in self._learning:
            found = self._owner.gradients[parameter]
            parameter.grad = found if parameter.grad is None else parameter.grad + found
        return self._row_gradients


class _Play(torch.autograd.Function):
    """`trigger` has the backward pass come here where no table is handed in."""

    @staticmethod
    def forward(ctx: Any, recording: Recording, trigger: torch.Tensor, *rows: torch.Tensor) -> torch.Tensor:
        ctx.recording = recording
        return recording.play_forward(rows)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return None, None, *ctx.recording.play_backward(gradient)


def _large_table(body: Any, name: str) -> Lookup | None:
    """What `input_ids` or `decoder_input_ids` are looked up in, if it is a large table."""
    if name not in ("input_ids", "decoder_input_ids"):
        return None
    table = (body if name == "input_ids" else body.get_decoder()).get_input_embeddings()
    return table if isinstance(table, Lookup) else None
