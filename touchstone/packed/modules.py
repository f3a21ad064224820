"""Modules that replace the model's own: the same results for less work.

* `Lookup` replaces a large `nn.Embedding`: its gradient holds the rows that were looked up, not a whole table that is
  zero everywhere else.
* `Head` replaces the output layer over the vocabulary: inside `Head.scoring` it returns losses instead of logits.
* `fast_dropout` replaces `torch.nn.functional.dropout`: on a CPU it draws masks eight times as fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from touchstone.stages.ragged import IGNORED

LARGE_TABLE = 2**20
"""Embeddings of at least this many elements are replaced; smaller ones (positions, token types) are not worth it."""
CACHED_ELEMENTS = 2**20
"""Logits computed together: 4 MiB in float32, which stay in a CPU's cache."""
CACHED_WORDS = 1024
"""Words whose logits are computed together when logits are not kept. `CACHED_ELEMENTS` of them leave a matrix product
enough rows and columns to be fast."""
GPU_FACTOR = 8
"""On a GPU slices have this many times as many rows and words, because many small calls are slow there."""
LEVELS = 2**15
"""Dropout rates are rounded to a multiple of 1 / LEVELS."""
MASK_DTYPES = {2: torch.int16, 4: torch.int32}
"""The integer type of a dropout mask, by the bytes of the values that it masks."""


# Embedding ------------------------------------------------------------------------------------------------------------


class Lookup(nn.Module):
    """An embedding without a dense gradient; it shares the weight of the `nn.Embedding` that it replaces.

    `nn.Embedding` makes a gradient as large as its table: half of all gradients in BERT, of which a batch touches one
    row in a hundred. Allocating and zeroing it takes longer than the arithmetic of a small batch. Here the rows'
    gradients are collected in `gradients`, and `weights` adds them to a buffer that is reused.

    Attributes:
        dtype: type of the output; None: that of the weight.
        gradients: (ids, gradient of the rows looked up) of every backward pass since the list was last cleared.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight
        self.padding_idx = embedding.padding_idx
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.dtype: torch.dtype | None = None
        self.gradients: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = _LookUp.apply(self.weight, input, self)  # type: ignore[no-untyped-call]
        return rows

    def add_gradient(self, ids: torch.Tensor, gradient: torch.Tensor) -> None:
        ids, gradient = ids.flatten(), gradient.flatten(0, -2)
        if self.padding_idx is not None:  # as in nn.Embedding, the padding's row gets no gradient
            gradient = gradient.masked_fill((ids == self.padding_idx)[:, None], 0.0)
        self.gradients.append((ids, gradient))


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, ids: torch.Tensor, lookup: Lookup) -> torch.Tensor:
        ctx.lookup = lookup
        ctx.save_for_backward(ids)
        return nn.functional.embedding(ids, weight).to(lookup.dtype or weight.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (ids,) = ctx.saved_tensors
        ctx.lookup.add_gradient(ids, gradient)
        return None, None, None


def is_large_table(module: nn.Module) -> bool:
    """Check whether a `Lookup` should replace this module."""
    return type(module) is nn.Embedding and module.weight.requires_grad and module.weight.numel() >= LARGE_TABLE


# Output layer and loss ------------------------------------------------------------------------------------------------


class Head(nn.Linear):
    """The output layer over the vocabulary; it shares the weights of the layer that it replaces.

    For M tokens and V words, `cross_entropy(linear(x))` allocates the logits, a float32 copy, log-probabilities and two
    gradients, (M, V) each: a gigabyte for a batch of programs. Inside `scoring` one (M, V) tensor is turned in place
    from logits into probabilities into their gradient, in slices that stay in a CPU's cache. Without a gradient there
    is no (M, V) tensor at all.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._labels: torch.Tensor | None = None
        self._extra_bias: torch.Tensor | None = None
        self._with_hits = False

    @contextmanager
    def scoring(
        self, labels: torch.Tensor, *, hits: bool = False, extra_bias: torch.Tensor | None = None
    ) -> Iterator[None]:
        """Make `forward` turn (1, M, H) into the losses of M labels, (1, M, 1) float32, zero where a label is -100.

        Args:
            labels: (M,) int64, -100 where ignored.
            hits: return (1, M, 2) without a gradient: the loss, and 1 if the label has the largest logit (the first one
                on a tie), else 0.
            extra_bias: (V,) what the model adds to the logits afterwards; it gets no gradient.
        """
        self._labels, self._with_hits, self._extra_bias = labels, hits, extra_bias
        try:
            yield
        finally:
            self._labels = self._extra_bias = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self._labels is None:
            return super().forward(input)
        bias: torch.Tensor | None = self.bias
        if self._extra_bias is not None:
            extra = self._extra_bias.to(input.dtype)
            bias = extra if bias is None else bias + extra
        x = input.flatten(0, -2)
        if self._with_hits or not torch.is_grad_enabled():
            losses, hits = linear_losses_and_hits(x, self.weight, bias=bias, labels=self._labels)
            return torch.stack([losses, hits.float()], -1)[None] if self._with_hits else losses[None, :, None]
        trained: torch.Tensor = _LinearCrossEntropy.apply(x, self.weight, bias, self._labels)  # type: ignore[no-untyped-call]
        return trained[None, :, None]


@torch.no_grad()
def linear_losses_and_hits(
    x: torch.Tensor, weight: torch.Tensor, *, bias: torch.Tensor | None, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute losses and hits of a linear layer without keeping its logits.

    Logits are made for some words at a time. Each slice is reduced to its largest logit and its part of softmax's sum.

    Args:
        x: (M, H); weight: (V, H); bias: (V,); labels: (M,) int64, -100 where ignored.

    Returns:
        (M,) float32 losses -log softmax(x W^T + b)[label], zero where the label is -100; and (M,) bool, True where the
        label is the first word with the largest logit.
    """
    _assert_in_bounds(labels, words=len(weight))
    factor = 1 if x.device.type == "cpu" else GPU_FACTOR
    words = CACHED_WORDS * factor
    rows = max(CACHED_ELEMENTS * factor**2 // words, 1)
    pieces = [
        _losses_and_hits_of_rows(x[start : start + rows], weight, bias, labels[start : start + rows], words)
        for start in range(0, max(len(labels), 1), rows)
    ]
    losses, hits = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return losses.masked_fill_(labels == IGNORED, 0.0), hits


def _losses_and_hits_of_rows(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor, words: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute `linear_losses_and_hits` for some rows. An ignored label gets an arbitrary loss, and no hit because no
    slice contains it."""
    label_logit = torch.full((len(labels),), -torch.inf, device=x.device)
    first_in_slice = torch.zeros(len(labels), dtype=torch.bool, device=x.device)  # the label is its slice's argmax
    tops, sums = [], []
    for start in range(0, len(weight), words):
        some = slice(start, start + words)
        logits = nn.functional.linear(x, weight[some], None if bias is None else bias[some]).float()  # (M, words)
        top = logits.amax(-1)
        column = labels - start
        here = (column >= 0) & (column < logits.shape[1])
        column = column.clamp(0, logits.shape[1] - 1)
        logit = logits.gather(1, column[:, None])[:, 0]
        label_logit = torch.where(here, logit, label_logit)
        candidates = (here & (logit == top)).nonzero()[:, 0]
        first_in_slice[candidates] = logits[candidates].argmax(-1) == column[candidates]
        tops.append(top)
        # sum(exp(logit - top)) in one pass over the logits: the largest probability is exp(0) over this sum.
        sums.append(torch.softmax(logits, -1).amax(-1).reciprocal())
    top, shares = torch.stack(tops), torch.stack(sums)  # (slices, M)
    best = top.amax(0)
    # In a slice of nothing but -inf (forbidden words) the sum is NaN; its share is zero.
    shares = torch.where(top == -torch.inf, 0.0, shares * torch.exp(top - best))
    slices = torch.arange(len(top), device=x.device)[:, None]
    beaten = torch.where(slices < labels // words, top >= label_logit, top > label_logit).any(0)
    return shares.sum(0).log_() + (best - label_logit), first_in_slice & ~beaten


def _assert_in_bounds(labels: torch.Tensor, *, words: int) -> None:
    """Check the labels without making the host wait for a GPU."""
    torch._assert_async((labels < words).all(), "a label is out of bounds: the head has fewer words")


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes -log softmax(x W^T + b)[label] of each row, in float32."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
    ) -> torch.Tensor:
        logits = x @ weight.t()  # (M, V); adding the bias here would write all of it once more
        _assert_in_bounds(labels, words=logits.shape[1])  # an index below would fall into another row
        losses = torch.empty(len(labels), dtype=torch.float32, device=x.device)
        rows = max(CACHED_ELEMENTS // max(logits.shape[1], 1), 1)
        if x.device.type != "cpu":
            rows = max(len(labels), 1)  # a GPU is slow at many small calls, and has the memory bandwidth
        for start in range(0, len(labels), rows):
            piece, label = logits[start : start + rows], labels[start : start + rows].clamp(min=0)
            scores = piece.float()
            if bias is not None:
                scores.add_(bias)
            logs = torch.log_softmax(scores, -1)
            # An index into the flattened tensor, because deterministic `scatter_` synchronizes on CUDA.
            index = torch.arange(len(label), device=x.device) * logs.shape[1] + label
            label_log = logs.view(-1).index_select(0, index)
            losses[start : start + rows] = -label_log
            # For the gradient keep softmax minus one at the label, subtracted before it is rounded.
            logs.exp_().view(-1).index_copy_(0, index, torch.expm1(label_log))
            piece.copy_(logs)
        ignored = labels == IGNORED
        ctx.save_for_backward(x, weight, logits, ignored)
        return losses.masked_fill_(ignored, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        # `d_logits` is softmax minus one at the label. The factors of the rows are multiplied into the small tensors,
        # not into this large one.
        x, weight, d_logits, ignored = ctx.saved_tensors
        factor = gradient.masked_fill(ignored, 0.0)[:, None]
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        return (
            (d_logits @ weight * factor).to(x.dtype) if needs_x else None,
            d_logits.t() @ (x * factor).to(x.dtype) if needs_weight else None,
            (factor.t().to(x.dtype) @ d_logits)[0] if needs_bias else None,
            None,
        )


# Dropout --------------------------------------------------------------------------------------------------------------


class MaskSource:
    """Draws dropout masks. What a training step draws depends only on the key that it was seeded with.

    torch draws one Bernoulli variable per element, one after the other, at 3.5 ns each: a sixth of a training step.
    Here 15 raw bits decide per element, and NumPy's SFC64 generates them in 0.4 ns. The rate is rounded to a multiple
    of 2^-15, and the elements that are kept are scaled by the exact inverse of the share that this leaves.
    """

    def __init__(self) -> None:
        self._bits = np.random.SFC64(0)

    def seed(self, *key: int) -> None:
        self._bits = np.random.SFC64(np.random.SeedSequence(key))

    def draw(self, shape: torch.Size, *, rate: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Draw a mask of this shape, in integers as wide as `dtype`: all bits set where kept, none where dropped."""
        integer = MASK_DTYPES[dtype.itemsize]
        if device.type != "cpu":
            return -(torch.rand(shape, device=device) >= _dropped_levels(rate) / LEVELS).to(integer)
        n = shape.numel()
        raw = torch.from_numpy(self._bits.random_raw((n + 3) // 4).view(np.int16)[:n]).view(shape)
        # In place and without a comparison: below the threshold the difference is negative, and shifting its sign bit
        # to the right fills the number.
        kept = raw.bitwise_and_(LEVELS - 1).sub_(_dropped_levels(rate)).bitwise_right_shift_(15).bitwise_not_()
        return kept if integer == torch.int16 else kept.to(integer)


DROPOUT_MASKS = MaskSource()
"""Draws all masks of a run; the engine seeds it in every step."""


def apply_mask(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Zero what the mask drops. The caller multiplies what is kept by `kept_scale`."""
    return values.view(mask.dtype).bitwise_and(mask).view(values.dtype)


def kept_scale(rate: float) -> float:
    """Return the factor that keeps the expected value unchanged."""
    return LEVELS / max(LEVELS - _dropped_levels(rate), 1)


def _dropped_levels(rate: float) -> int:
    return round(rate * LEVELS)


@contextmanager
def fast_dropout(masks: MaskSource) -> Iterator[None]:
    """Make `torch.nn.functional.dropout` draw from `masks` on a CPU. All models call it, directly (Marian, BART) or
    through `nn.Dropout`."""
    original = nn.functional.dropout

    def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if not training or p == 0.0:
            return input
        if inplace or not 0.0 < p <= 1.0 or input.device.type != "cpu" or input.dtype.itemsize not in MASK_DTYPES:
            return original(input, p, training, inplace)
        mask = masks.draw(input.shape, rate=p, dtype=input.dtype, device=input.device)
        output: torch.Tensor = _Drop.apply(input, mask, kept_scale(p))  # type: ignore[no-untyped-call]
        return output

    nn.functional.dropout = dropout
    try:
        yield
    finally:
        nn.functional.dropout = original


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return apply_mask(values.contiguous(), mask).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (mask,) = ctx.saved_tensors
        return apply_mask(gradient.contiguous(), mask).mul_(ctx.scale), None, None
