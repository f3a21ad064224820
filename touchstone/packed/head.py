"""The loss over a vocabulary, without the tensors that cross entropy leaves behind.

Of M tokens over V words, `cross_entropy(linear(x))` makes logits, their float32 copy, log-probabilities and two
gradients, (M, V) each: for a batch of programs a gigabyte that is written and read once. Here one (M, V) tensor goes
from logits to probabilities to the gradient in place, in slices that stay in a cache. Where no gradient is wanted,
there is no (M, V) tensor at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from touchstone.stages.ragged import IGNORED

CACHED = 2**20
"""Elements of a slice: 4 MiB in float32."""
WORDS = 1024
"""Of a slice of logits that are not kept: together with `CACHED`, few enough to stay in a cache, and as many rows and
columns as a product of matrices needs to be fast."""
WIDER = 8
"""Times as many rows and as many words on a GPU: slow at many small calls."""


class Head(nn.Linear):
    """Takes the place of a model's last layer, and shares its weights. Within `scores` it returns no logits."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._labels: torch.Tensor | None = None
        self._extra: torch.Tensor | None = None
        self._hits = False

    @contextmanager
    def scores(
        self, labels: torch.Tensor, *, hits: bool = False, extra_bias: torch.Tensor | None = None
    ) -> Iterator[None]:
        """Within, `forward` takes (1, M, H) and returns (1, M, 1) float32: the loss of each of the M labels, zero where
        it is -100; with `hits` (1, M, 2), without a gradient: beside the loss, 1 where the label is the first of the
        likeliest words, else 0.

        Args:
            extra_bias: (V,) what the model adds to the logits afterwards; it has no gradient.
        """
        self._labels, self._hits, self._extra = labels, hits, extra_bias
        try:
            yield
        finally:
            self._labels = self._extra = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self._labels is None:
            return super().forward(input)
        bias: torch.Tensor | None = self.bias
        if self._extra is not None:
            bias = self._extra.to(input.dtype) if bias is None else bias + self._extra.to(input.dtype)
        x = input.flatten(0, -2)
        if self._hits or not torch.is_grad_enabled():
            losses, hits = linear_losses_and_hits(x, self.weight, bias=bias, labels=self._labels)
            return torch.stack([losses, hits.float()], -1)[None] if self._hits else losses[None, :, None]
        learnt: torch.Tensor = _LinearCrossEntropy.apply(x, self.weight, bias, self._labels)  # type: ignore[no-untyped-call]
        return learnt[None, :, None]


@torch.no_grad()
def linear_losses_and_hits(
    x: torch.Tensor, weight: torch.Tensor, *, bias: torch.Tensor | None, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(M,) float32 -log softmax(x W^T + b)[label] of each row, zero where it is -100; and (M,) bool whether the label
    has the largest logit, and no word before it has as large a one.

    Logits are made some words at a time, and what is left of each slice is its largest and its share of the sum that
    softmax divides by.

    Args:
        x: (M, H); weight: (V, H); bias: (V,); labels: (M,) int64, -100 where ignored.
    """
    _assert_in_bounds(labels, words=len(weight))
    wider = 1 if x.device.type == "cpu" else WIDER
    words = WORDS * wider
    rows = max(CACHED * wider**2 // words, 1)
    pieces = [
        _of_rows(x[start : start + rows], weight, bias, labels[start : start + rows], words)
        for start in range(0, max(len(labels), 1), rows)
    ]
    losses, hits = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return losses.masked_fill_(labels == IGNORED, 0.0), hits


def _of_rows(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor, words: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `linear_losses_and_hits`, of rows that are computed together. The loss of an ignored one may be anything; it
    is no hit, for no slice holds its label."""
    right = torch.full((len(labels),), -torch.inf, device=x.device)
    first = torch.zeros(len(labels), dtype=torch.bool, device=x.device)  # the label is the first largest of its slice
    tops, sums = [], []
    for start in range(0, len(weight), words):
        some = slice(start, start + words)
        logits = nn.functional.linear(x, weight[some], None if bias is None else bias[some]).float()  # (M, words)
        top = logits.amax(-1)
        place = labels - start
        here = (place >= 0) & (place < logits.shape[1])
        place = place.clamp(0, logits.shape[1] - 1)
        own = logits.gather(1, place[:, None])[:, 0]
        right = torch.where(here, own, right)
        found = (here & (own == top)).nonzero()[:, 0]
        first[found] = logits[found].argmax(-1) == place[found]
        tops.append(top)
        # One pass: the largest probability is exp(0) over the sum of exp(logit - top).
        sums.append(torch.softmax(logits, -1).amax(-1).reciprocal())
    top, shares = torch.stack(tops), torch.stack(sums)  # (slices, M)
    best = top.amax(0)
    # A slice of -inf alone (words that may not be) has no largest probability, and no share.
    shares = torch.where(top == -torch.inf, 0.0, shares * torch.exp(top - best))
    slices = torch.arange(len(top), device=x.device)[:, None]
    beaten = torch.where(slices < labels // words, top >= right, top > right).any(0)
    return shares.sum(0).log_() + (best - right), first & ~beaten


def _assert_in_bounds(labels: torch.Tensor, *, words: int) -> None:
    """A GPU checks it on its way, without anyone waiting for it."""
    torch._assert_async((labels < words).all(), "a label is out of bounds: the head has fewer words")


class _LinearCrossEntropy(torch.autograd.Function):
    """-log softmax(x W^T + b)[label] of each row, in float32."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
    ) -> torch.Tensor:
        logits = x @ weight.t()  # (M, V); with the bias it would be filled twice
        _assert_in_bounds(labels, words=logits.shape[1])  # the places below would be another row's
        losses = torch.empty(len(labels), dtype=torch.float32, device=x.device)
        rows = max(CACHED // max(logits.shape[1], 1), 1)
        if x.device.type != "cpu":
            rows = max(len(labels), 1)  # a GPU is slow at many small calls, and has the bandwidth
        for start in range(0, len(labels), rows):
            piece, label = logits[start : start + rows], labels[start : start + rows].clamp(min=0)
            scores = piece.float()
            if bias is not None:
                scores.add_(bias)
            logs = torch.log_softmax(scores, -1)
            # By place in the flattened table: `scatter_` has no deterministic way on CUDA but one that waits for it.
            place = torch.arange(len(label), device=x.device) * logs.shape[1] + label
            right = logs.view(-1).index_select(0, place)
            losses[start : start + rows] = -right
            # Now what the gradient needs: softmax less one at the label, subtracted before it is rounded.
            logs.exp_().view(-1).index_copy_(0, place, torch.expm1(right))
            piece.copy_(logs)
        ignored = labels == IGNORED
        ctx.save_for_backward(x, weight, logits, ignored)
        return losses.masked_fill_(ignored, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        # In place of the logits stands softmax less one at the label. The rows' own factors are multiplied into what is
        # small, not into the table of all logits.
        x, weight, table, ignored = ctx.saved_tensors
        factor = gradient.masked_fill(ignored, 0.0)[:, None]
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        return (
            (table @ weight * factor).to(x.dtype) if needs_x else None,
            table.t() @ (x * factor).to(x.dtype) if needs_weight else None,
            (factor.t().to(x.dtype) @ table)[0] if needs_bias else None,
            None,
        )
