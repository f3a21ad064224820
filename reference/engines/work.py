"""The least work of a training run, whatever engine does it: arithmetic of the model, memory traffic of the optimizer.

The idea: run the pipeline's own loss of one example forward and backward through the model, without padding and without
data (on torch's `meta` device), and count every matrix product with torch's `FlopCounterMode`. The FLOPs of an example
depend only on its lengths, by a polynomial of the second degree. For an example with one length n, say,

    FLOPs(n) = a + b n + c n^2        b n: the linear layers, c n^2: attention

A few examples determine the coefficients; two more check them. The FLOPs of a run are then the sum of FLOPs(n) over all
examples that were trained on. Only work that no implementation can avoid is counted:

* real tokens, no padding;
* in attention, pairs of tokens that can see each other: about half of all pairs if attention is causal;
* in the layer over the vocabulary, the labelled positions, which are counted separately: `items` times a constant;
* nothing that a kernel computes twice to save memory.

The optimizer reads and writes `ADAMW_BYTES` for each trainable parameter in each step.
"""

from __future__ import annotations

import copy
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
from touchstone.pipelines.vocabulary import hidden_state_hook
from touchstone.stages.ragged import Array, Ragged

FORMULA = (
    "counted over the model, forward and backward: matrix products of real tokens, attention by the pairs that see "
    "each other, the layer over the vocabulary at labelled places alone"
)
"""Written to every record, so it changes only with the figures."""
ADAMW_BYTES = 28
"""Bytes per parameter and step. AdamW reads the parameter, its gradient and two moments, and writes all but the
gradient, 4 bytes each. In half precision the gradient may take 2 bytes; writing the rounded parameter takes 2 more."""
STATE_BYTES = 16
"""Bytes per parameter: the parameter itself, its gradient and its two moments."""
EXACT = 1e-9
"""The largest relative difference between the polynomial and a count: rounding in float64."""
NAME = "touchstone_counted"
"""The name under which transformers finds the counted attention."""


class WorkError(Exception):
    """The work of a run cannot be counted. The message gives the reason."""


@dataclass(frozen=True)
class Work:
    """The least work of a run.

    Attributes:
        flops: floating-point operations of all training steps; a multiplication and an addition are two.
        optimizer_bytes: bytes that AdamW moves in all steps.
        state_bytes: bytes of all trainable parameters, their gradients and moments, which each step goes through.
        formula: how the FLOPs were counted.
    """

    flops: float
    optimizer_bytes: int
    state_bytes: int
    formula: str = FORMULA


def minimum_work(pipeline: Pipeline, run: TrainingRun, *, seed: int) -> Work:
    """Count the work of a finished run.

    Raises:
        WorkError: the run has no model or no steps, or the arithmetic of its model cannot be counted.
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
        state_bytes=STATE_BYTES * trainable,
    )


def times_trained(size: int, *, samples: int, seed: int) -> Array:
    """Return (size,) how often each example of the train split is among the first `samples` of a run."""
    epochs, rest = divmod(samples, size)
    times = np.full(size, epochs, dtype=np.int64)
    times[EpochOrder(size, seed=seed).permutation(epochs)[:rest]] += 1
    return times


class ExampleCounter:
    """Counts the FLOPs of examples. The model, its gradients and torch's generators do not change.

    Args:
        learns: count forward and backward; otherwise only forward.
    """

    def __init__(self, pipeline: Pipeline, model: PreTrainedModel, *, learns: bool = True) -> None:
        self.pipeline = pipeline
        self.learns = learns
        self.model = _OneExample(_without_data(model))

    def total(self, rows: FeatureRows, *, times: Array, items: int) -> float:
        """Return the FLOPs of `times[i]` passes over each example i, with `items` labelled positions in all.

        Raises:
            WorkError: the FLOPs of an example are not a polynomial of its lengths.
        """
        lengths = _lengths(rows)
        keys = np.ravel_multi_index(tuple(lengths), tuple(lengths.max(1) + 1))
        _, first, kind = np.unique(keys, return_index=True, return_inverse=True)  # examples with the same lengths
        terms = self._terms(lengths[:, first])
        fitted = _spanning_rows(terms)
        counts = np.asarray([self.count(rows, int(first[row]), items=0) for row in fitted])
        coefficients = np.linalg.lstsq(terms[fitted], counts, rcond=None)[0]
        others = np.setdiff1d(np.arange(len(terms)), fitted)
        for row in others[[len(others) // 3, 2 * len(others) // 3]] if len(others) else []:
            counted, predicted = self.count(rows, int(first[row]), items=0), float(terms[row] @ coefficients)
            if abs(predicted - counted) > EXACT * counted:
                raise WorkError(
                    f"example {first[row]} of the split takes {counted:.6e} FLOPs, but the polynomial of lengths that "
                    f"fits other examples gives {predicted:.6e}"
                )
        head = 0
        if self.model.has_vocabulary_loss:
            head = self.count(rows, int(first[fitted[0]]), items=1) - int(counts[0])
        return float(np.bincount(kind, weights=times) @ terms @ coefficients) + items * head

    def count(self, rows: FeatureRows, index: int, *, items: int) -> int:
        """Return the FLOPs of one example, with the layer over the vocabulary at `items` positions, if there is one."""
        batch = self.pipeline.collate([rows[0, index]], train=self.learns)
        batch = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        self.model.items = items
        _ATTENTION.flops = 0
        try:
            with torch.set_grad_enabled(self.learns), FlopCounterMode(display=False) as counter:
                loss = self.pipeline.loss(self.model, batch)
                if self.learns:
                    loss.backward()  # type: ignore[no-untyped-call]
        finally:
            self.model.zero_grad()
        return int(counter.get_total_flops()) + _ATTENTION.flops

    def _terms(self, lengths: Array) -> Array:
        """Return (K, F) the terms of the polynomial, scaled to at most 1, for (D, K) lengths.

        The terms are 1, each length, each product of two lengths, and the number of pairs within each sliding window.
        """
        given = [getattr(module, "sliding_window", None) for module in self.model.modules()]
        windows = sorted({window for window in given if isinstance(window, int)})
        terms = [np.ones(lengths.shape[1]), *lengths]
        terms += [a * b for a, b in combinations_with_replacement(lengths, 2)]
        terms += [pairs(length, length, causal=False, window=window) for length in lengths for window in windows]
        return np.stack([term / max(term.max(), 1) for term in terms], axis=1)


def pairs(queries: Any, keys: Any, *, causal: bool, window: int | None) -> Any:
    """Return how many pairs of a query and a key can see each other.

    >>> pairs(3, 3, causal=True, window=None)
    6

    Args:
        queries, keys: their numbers, or arrays of them; equal if `causal` or `window` is given.
        causal: a query sees no later key.
        window: a query sees only keys less than this many tokens away.
    """
    if not causal and window is None:
        return queries * keys
    reach = queries if window is None else np.minimum(queries, window)
    one_side = queries * reach - reach * (reach - 1) // 2  # the sum of (queries - distance) over distance < reach
    return one_side if causal else 2 * one_side - queries


def _lengths(rows: FeatureRows) -> Array:
    """Return (D, N) the lengths of each example: one row for all columns with the same lengths."""
    found: list[Array] = []
    for column in rows.columns.values():
        if isinstance(column, Ragged) and not any(np.array_equal(column.lengths, other) for other in found):
            found.append(column.lengths)
    return np.stack(found)


def _spanning_rows(terms: Array) -> Array:
    """Return the indices of a few rows of (K, F) that span all rows, by QR with pivoting: at most F of them."""
    _, r, order = qr(terms.T, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(r))
    return np.asarray(order[: int((diagonal > 1e-11 * diagonal[0]).sum())])


# The model that is counted --------------------------------------------------------------------------------------------


def _without_data(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy on the `meta` device, where tensors have shapes and no values, with counted attention."""
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
            f"{type(model).__name__} does not use transformers' attention interface, so it cannot be counted ({error})"
        ) from error
    found: PreTrainedModel = copied.eval()
    return found


class _OneExample(torch.nn.Module):
    """Stands in for the model when a pipeline computes the loss of one example. It implements `ScoresPositions`.

    Attributes:
        items: at how many positions to compute the layer over the vocabulary.
        has_vocabulary_loss: whether the pipeline has computed a loss over the vocabulary.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.items = 0
        self.has_vocabulary_loss = False

    def forward(self, *, input_ids: torch.Tensor, **inputs: Any) -> Any:
        inputs["attention_mask"] = torch.ones_like(input_ids)  # without a mask, some models look for padding tokens
        return self.model(input_ids=input_ids, **inputs)

    def losses_at_positions(
        self,
        positions: torch.Tensor | None,
        *,
        labels: torch.Tensor,
        decoder_mask: torch.Tensor | None = None,
        **inputs: Any,
    ) -> torch.Tensor:
        """Return values without meaning. Only their shape and the arithmetic matter."""
        self.has_vocabulary_loss = True
        # The positions themselves do not matter. The sum keeps a path for gradients to all tokens, also for 0 items.
        with hidden_state_hook(self.model, lambda hidden: hidden.sum(1, keepdim=True).expand(-1, self.items, -1)):
            logits: torch.Tensor = self(**inputs).logits
        return logits.float().sum().expand(len(labels))

    def losses_and_hits_at_positions(
        self, positions: torch.Tensor | None, **given: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        losses = self.losses_at_positions(positions, **given)
        return losses, losses > 0


@dataclass
class _Tally:
    flops: int = 0


_ATTENTION = _Tally()
"""The FLOPs of attention in the example that is being counted."""


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
    """Count an attention layer, and return an output of the right shape: (B, heads, T, d) in, (B, T, heads, d) out.

    Attention is two matrix products forward (queries with keys, weights with values) and four backward. A kernel may
    compute some of them twice, which is not counted.
    """
    causal = settings.get("is_causal")
    causal = bool(getattr(module, "is_causal", False) if causal is None else causal)
    seen = int(pairs(query.shape[2], key.shape[2], causal=causal, window=sliding_window))
    forward = 2 * query.shape[0] * query.shape[1] * seen * (query.shape[3] + value.shape[3])
    _ATTENTION.flops += forward * (3 if query.requires_grad else 1)
    # Sums are not counted, and leave a path for gradients to all three.
    reached = query.sum(3, keepdim=True) + key.sum((1, 2, 3), keepdim=True) + value.sum((1, 2), keepdim=True)
    return reached.transpose(1, 2), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Make no attention mask: one example without padding needs none, and `pairs` accounts for causal and window."""


AttentionInterface.register(NAME, _counted_attention)
AttentionMaskInterface.register(NAME, _no_mask)
