"""The scores of all tokens that may come next, and the best of them.

Over a vocabulary of tens of thousands this is most of what a small model computes. Scores stand in one tensor for all
steps, its columns filled up to whole blocks: the largest of all are among the blocks whose own largest are largest, and
a maximum by block is vectorized where `argmax` and `topk` go number by number.
"""

from __future__ import annotations

from typing import Any

import torch

from touchstone.packed.writing.projection import Projection
from touchstone.packed.writing.rules import Rules

BLOCK = 256
CACHED = 2**20
"""Scores of a slice, 4 MiB, that a CPU turns into log-probabilities at once: they stay in its cache."""


class VocabularyScores:
    """Args:
    model: whose layer over the vocabulary it is, with its `final_logits_bias` where it has one.
    rows: at most.
    """

    def __init__(self, model: Any, *, rows: int, rules: Rules) -> None:
        head = model.get_output_embeddings()
        self._project, self._rules = Projection(head.weight, rows=rows), rules
        biases = [each for each in (head.bias, getattr(model, "final_logits_bias", None)) if each is not None]
        self._bias = sum(each.float().view(-1) for each in biases) if any(map(torch.any, biases)) else None
        self.size: int = head.out_features
        self.device: torch.device = head.weight.device
        self._forbidden = torch.tensor(rules.forbidden, dtype=torch.int64, device=self.device)
        width = -(-self.size // BLOCK) * BLOCK
        self._scores = torch.full((rows, width), -torch.inf, device=self.device)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, W) float32 of (N, H), minus infinity from the vocabulary's size on; overwritten by the next call."""
        scores = self._scores[: len(hidden)]
        place = scores[:, : self.size].copy_(self._project(hidden))
        if self._bias is not None:
            place += self._bias
        return scores

    def likeliest(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N,) the token with the largest score among those allowed, the first of equal ones."""
        blocks = self._forbid(self.logits(hidden)).view(len(hidden), -1, BLOCK)
        block = blocks.amax(-1).argmax(-1)
        inner = blocks.gather(1, block[:, None, None].expand(-1, 1, BLOCK))[:, 0].argmax(-1)
        return block * BLOCK + inner

    def log_probabilities(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, W) float32, minus infinity where a token is not allowed; overwritten by the next call."""
        scores = self.logits(hidden)
        if self._rules.renormalized:
            self._forbid(scores)
        slices = max(CACHED // scores.shape[1], 1) if scores.device.type == "cpu" else len(scores)
        for piece in torch.split(scores, slices):
            piece.copy_(torch.log_softmax(piece, -1))
        return scores if self._rules.renormalized else self._forbid(scores)

    def certain(self, token: int, *, rows: int) -> torch.Tensor:
        """(N, W) the log-probabilities of rows that must go on with this token."""
        scores = self._scores[:rows].fill_(-torch.inf)
        scores[:, token] = 0.0
        return scores

    def _forbid(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill_(1, self._forbidden, -torch.inf) if len(self._forbidden) else scores


def best_of(scores: torch.Tensor, *, before: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    """The best continuations of each source's beams.

    Args:
        scores: (B * G, W) log-probabilities of every next token, W a multiple of `BLOCK`.
        before: (B, G) those of the beams up to here.
        count: K, how many are wanted.

    Returns:
        (B, K) each: their log-probabilities, the largest first, their beams and their tokens.
    """
    rows, beams = before.shape
    blocks = scores.view(rows, beams, -1, BLOCK)
    each = blocks.shape[2]
    # A sum is rounded, but never the other way round: the order of blocks is that of their largest.
    tops = blocks.amax(-1) + before[:, :, None]
    which = tops.flatten(1).topk(min(count, tops[0].numel())).indices  # (B, K)
    inner = blocks.flatten(1, 2).gather(1, which[:, :, None].expand(-1, -1, BLOCK))
    inner += before.gather(1, which // each)[:, :, None]
    found, place = inner.flatten(1).topk(count)
    block = which.gather(1, place // BLOCK)
    return found, block // each, block % each * BLOCK + place % BLOCK
