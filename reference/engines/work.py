"""How much a training has to compute, whatever engine does it: arithmetic of the model, and bytes of the optimizer.

Arithmetic is counted, not estimated: the pipeline's own loss of a few examples, one at a time and so without padding,
goes forward and backward through the model itself, without data (on torch's `meta` device), and every matrix product
is counted on the way. What one example takes is a polynomial of its lengths, known exactly after a handful of them;
summed over what was trained it is the work of the run. That work is necessary, so a floor can be made of it:

* tokens are real ones; padding is nobody's need;
* attention is counted by the pairs of tokens that may see each other: half of all where it is causal;
* a layer over the vocabulary is counted at the places that have a label, and nowhere else;
* nothing is counted twice that a kernel computes again in order to save memory.
"""

from __future__ import annotations

import copy
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from scipy.linalg import qr
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from touchstone.engines.order import EpochOrder
from touchstone.engines.training import TrainingRun
from touchstone.pipelines.pipeline import FeatureRows, Pipeline
from touchstone.pipelines.vocabulary import before_head
from touchstone.stages.ragged import Array, Ragged

FORMULA = (
    "counted over the model, forward and backward: matrix products of real tokens, attention by the pairs that see "
    "each other, the layer over the vocabulary at labelled places alone"
)
ADAMW_BYTES = 28
"""A parameter and step: AdamW reads parameter, gradient and two moments and writes all but the gradient, float32 each.
In half precision the gradient may have 2 bytes, and the rounded copy that the model computes with has the other 2."""
EXACT = 1e-9
"""Relative difference between the polynomial and an example that it was not made of: rounding of float64, no more."""
NAME = "touchstone_counted"


class WorkError(Exception):
    """The work of a run cannot be counted: says why."""


@dataclass(frozen=True)
class Work:
    """Attributes:
    flops: floating-point operations of all training steps, by `formula`; a product of matrices has two a term.
    optimizer_bytes: that a dense AdamW moves in all steps: `ADAMW_BYTES` for every trainable parameter in each.
    state_bytes: of trainable parameters, their gradients and moments: what the optimizer goes over in each step.
    """

    flops: float
    optimizer_bytes: int
    state_bytes: int
    formula: str = FORMULA


def necessary_work(pipeline: Pipeline, run: TrainingRun, *, seed: int) -> Work:
    """The work of a finished run.

    Raises:
        WorkError: the run kept no model or made no step, or its model's arithmetic is none that can be counted.
    """
    if run.model is None or not run.trajectory:
        raise WorkError("the run kept no model, or made no step")
    trainable = sum(parameter.numel() for parameter in run.model.parameters() if parameter.requires_grad)
    rows = FeatureRows(pipeline.columns("train"))
    times = times_trained(len(rows), samples=run.trajectory[-1].samples, seed=seed)
    counter = ExampleCounter(pipeline, run.model)
    return Work(
        flops=counter.total(rows, times=times, items=run.items),
        optimizer_bytes=ADAMW_BYTES * trainable * len(run.trajectory),
        state_bytes=16 * trainable,
    )


def times_trained(size: int, *, samples: int, seed: int) -> Array:
    """(size,) how often each example of the train split is among the first `samples` that a run trains on."""
    epochs, rest = divmod(samples, size)
    times = np.full(size, epochs, dtype=np.int64)
    times[EpochOrder(size, seed=seed).permutation(epochs)[:rest]] += 1
    return times


class ExampleCounter:
    """Counts what one example takes, forward and backward if the model `learns`, else forward alone. The model, its
    gradients and torch's generators stay as they are."""

    def __init__(self, pipeline: Pipeline, model: PreTrainedModel, *, learns: bool = True) -> None:
        self.pipeline = pipeline
        self.learns = learns
        self.model = _Probed(_without_data(model))

    def total(self, rows: FeatureRows, *, times: Array, items: int) -> float:
        """FLOPs of example i `times[i]` times, with `items` labelled places in all.

        Raises:
            WorkError: the model has attention of its own, or takes what is no polynomial of lengths.
        """
        lengths = _lengths(rows)
        keys = np.ravel_multi_index(tuple(lengths), tuple(lengths.max(1) + 1))
        _, first, kind = np.unique(keys, return_index=True, return_inverse=True)  # examples of the same lengths are one
        features = self._features(lengths[:, first])
        spanning = _spanning(features)
        counts = np.asarray([self.count(rows, int(first[row]), items=0) for row in spanning])
        coefficients = np.linalg.lstsq(features[spanning], counts, rcond=None)[0]
        others = np.setdiff1d(np.arange(len(features)), spanning)
        for row in others[[len(others) // 3, 2 * len(others) // 3]] if len(others) else []:
            counted, told = self.count(rows, int(first[row]), items=0), float(features[row] @ coefficients)
            if abs(told - counted) > EXACT * counted:
                raise WorkError(
                    f"example {first[row]} of the split takes {counted:.6e} FLOPs, and by the polynomial of "
                    f"lengths that fits others it would be {told:.6e}"
                )
        head = self.count(rows, int(first[spanning[0]]), items=1) - int(counts[0]) if self.model.asked else 0
        return float(np.bincount(kind, weights=times) @ features @ coefficients) + items * head

    def count(self, rows: FeatureRows, index: int, *, items: int) -> int:
        """FLOPs of one example; a layer over the vocabulary, if there is one, at `items` places."""
        batch = self.pipeline.collate([rows[0, index]], train=self.learns)
        self.model.items = items
        batch = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        attention = _Attention()
        token = _ATTENTION.set(attention)
        try:
            with torch.set_grad_enabled(self.learns), FlopCounterMode(display=False) as counter:
                loss = self.pipeline.loss(self.model, batch)
                if self.learns:
                    loss.backward()  # type: ignore[no-untyped-call]
        finally:
            _ATTENTION.reset(token)
            self.model.zero_grad()
        return int(counter.get_total_flops()) + attention.flops

    def _features(self, lengths: Array) -> Array:
        """(D, F) what the polynomial is made of, for (K, D) lengths: one, lengths, their products, and the pairs within
        a sliding window."""
        given = [getattr(module, "sliding_window", None) for module in self.model.modules()]
        windows = sorted({window for window in given if isinstance(window, int)})
        features = [np.ones(lengths.shape[1]), *lengths]
        features += [a * b for a, b in combinations_with_replacement(lengths, 2)]
        features += [pairs(length, length, causal=False, window=window) for length in lengths for window in windows]
        return np.stack([feature / max(feature.max(), 1) for feature in features], axis=1)


def _lengths(rows: FeatureRows) -> Array:
    """(K, N) of each example. Columns that have the same lengths in all examples are one."""
    found: list[Array] = []
    for column in rows.columns.values():
        if isinstance(column, Ragged) and not any(np.array_equal(column.lengths, other) for other in found):
            found.append(column.lengths)
    return np.stack(found)


def pairs(queries: Any, keys: Any, *, causal: bool, window: int | None) -> Any:
    """How many pairs of a query and a key see each other; `queries` and `keys` are as many, or arrays of that.

    Args:
        causal: a query sees no key after itself.
        window: a query sees keys less than this many tokens away.
    """
    if not causal and window is None:
        return queries * keys
    reach = queries if window is None else np.minimum(queries, window)  # as many queries as keys from here on
    one_side = queries * reach - reach * (reach - 1) // 2  # sum over the distance d < reach of queries - d
    return one_side if causal else 2 * one_side - queries


def _spanning(features: Array) -> Array:
    """(R,) rows of (D, F) of which all rows are combinations."""
    _, r, order = qr(features.T, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(r))
    return np.asarray(order[: int((diagonal > 1e-11 * diagonal[0]).sum())])


def _without_data(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose tensors have shapes and no values."""
    shapes: dict[int, torch.Tensor] = {}
    for parameter in model.parameters():
        shapes[id(parameter)] = torch.nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        shapes[id(buffer)] = buffer.to("meta")
    copied: Any = copy.deepcopy(model, shapes)
    try:
        copied.set_attn_implementation(NAME)
    except (ValueError, AttributeError) as error:
        raise WorkError(
            f"{type(model).__name__} has attention of its own, which cannot be counted ({error})"
        ) from error
    found: PreTrainedModel = copied.eval()
    return found


class _Probed(torch.nn.Module):
    """What pipelines call in place of the model: one example at a time, no padding.

    Attributes:
        items: at how many places the layer over the vocabulary is to compute.
        asked: whether a pipeline has asked for a loss over a vocabulary.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.items = 0
        self.asked = False

    def forward(self, *, input_ids: torch.Tensor, **inputs: Any) -> Any:
        inputs["attention_mask"] = torch.ones_like(input_ids)  # without one, some models look for padding tokens
        return self.model(input_ids=input_ids, **inputs)

    def losses_at(
        self,
        places: torch.Tensor | None,
        *,
        labels: torch.Tensor,
        decoder_mask: torch.Tensor | None = None,
        **inputs: Any,
    ) -> torch.Tensor:
        """See `touchstone.pipelines.vocabulary`; the values mean nothing, the shape and the arithmetic do."""
        self.asked = True
        # Whichever places: each leads back to all tokens, and so does the choice of none.
        with before_head(self.model, lambda hidden: hidden.sum(1, keepdim=True).expand(-1, self.items, -1)):
            logits: torch.Tensor = self(**inputs).logits
        return logits.float().sum().expand(len(labels))


@dataclass
class _Attention:
    """What attention took, of the example that is on its way."""

    flops: int = 0


_ATTENTION: ContextVar[_Attention | None] = ContextVar("attention", default=None)


def _counted_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    sliding_window: int | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Stands for any attention: shapes (B, heads, T, d) in, (B, T, heads, d) out, and the right count.

    Two products forward and four backward, of weights with values and of queries with keys; what a kernel computes once
    more is not counted.
    """
    causal = settings.get("is_causal")
    causal = bool(getattr(module, "is_causal", False) if causal is None else causal)
    seen = int(pairs(query.shape[2], key.shape[2], causal=causal, window=sliding_window))
    forward = 2 * query.shape[0] * query.shape[1] * seen * (query.shape[3] + value.shape[3])
    output: torch.Tensor = _Attend.apply(query, key, value, forward)  # type: ignore[no-untyped-call]
    return output, None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, flops: int) -> torch.Tensor:
        ctx.shapes, ctx.flops, ctx.tally = (query.shape, key.shape, value.shape), flops, _ATTENTION.get()
        ctx.tally.flops += flops
        return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        ctx.tally.flops += 2 * ctx.flops
        return (*(gradient.new_empty(shape) for shape in ctx.shapes), None)


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """One example without padding needs none: what is causal or a window is counted by its pairs."""


AttentionInterface.register(NAME, _counted_attention)
AttentionMaskInterface.register(NAME, _no_mask)
