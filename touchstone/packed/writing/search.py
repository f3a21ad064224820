"""Greedy and beam search, with the outcome of transformers' `generate` under the same rules.

Rows that have ended leave the batch, and no step asks the device for anything but every `interval` steps: a GPU is not
waited for.
"""

from __future__ import annotations

import torch

from touchstone.packed.writing.decoder import Decoder
from touchstone.packed.writing.rules import Rules
from touchstone.packed.writing.vocabulary_scores import VocabularyScores, best_of

LEAVING = 8
"""One row in so many must have ended before rows leave: what is kept of the others has to be copied."""
NEVER = -1.0e9
"""What transformers gives beams that must not be chosen; other values would break ties between them differently."""


def interval_on(device: torch.device) -> int:
    """Steps between two looks at how many rows have ended. On a CPU a look costs nothing; a GPU does a few steps for
    nothing at the end, and need not be waited for at the others."""
    return 1 if device.type == "cpu" else 8


def greedy(decoder: Decoder, scores: VocabularyScores, rules: Rules, *, rows: int, interval: int) -> torch.Tensor:
    """(B, 1 + T) int64 the likeliest token each time, the start first, padding after a row's end."""
    batch = _Batch(rows, rules, device=scores.device)
    written = batch.empty(rows)
    ended = torch.zeros(rows, dtype=torch.bool, device=scores.device)
    for place in range(rules.steps):
        forced = rules.forced(place)
        hidden = None
        if forced is None or place < rules.steps - 1:
            hidden = decoder.step(written[:, place], place)
        if forced is None:
            assert hidden is not None
            tokens = scores.likeliest(hidden)
        else:
            tokens = torch.full_like(written[:, 0], forced)
        tokens = tokens.masked_fill_(ended, rules.padding)
        written[:, place + 1] = tokens
        ended |= batch.ends(tokens)
        if place % interval == interval - 1 and place < rules.steps - 1:
            keep = batch.those_left(ended, written)
            if keep is None:
                continue
            if not len(keep):
                return batch.finish()
            decoder.keep(keep)
            written, ended = written.index_select(0, keep), ended.index_select(0, keep)
    return batch.finish(written)


def beam_search(decoder: Decoder, scores: VocabularyScores, rules: Rules, *, rows: int, interval: int) -> torch.Tensor:
    """(B, 1 + T) int64 the best of G beams, the start first, padding after a row's end."""
    device, beams = scores.device, rules.beams
    batch = _Batch(rows, rules, device=device)
    count = max(2, 1 + len(rules.ends)) * beams  # so many that G of them go on, whatever ends
    running = batch.empty(rows, beams)  # (B, G, 1 + T)
    finished = running.clone()
    running_scores = torch.zeros((rows, beams), device=device)
    running_scores[:, 1:] = NEVER  # all beams are alike at first: one of them goes on
    finished_scores = torch.full_like(running_scores, NEVER)
    is_finished = torch.zeros_like(running_scores, dtype=torch.bool)
    is_open = torch.ones((rows, 1), dtype=torch.bool, device=device)
    for place in range(rules.steps):
        length, last = place + 1, place == rules.steps - 1
        forced = rules.forced(place)
        if forced is None or not last:
            hidden = decoder.step(running[:, :, place].flatten(), place)
        if forced is None:
            probabilities = scores.log_probabilities(hidden)
        else:
            probabilities = scores.certain(forced, rows=running_scores.numel())
        found, parents, tokens = best_of(probabilities, before=running_scores, count=count)
        texts = running.gather(1, parents[:, :, None].expand(-1, -1, running.shape[2]))
        texts[:, :, place + 1] = tokens
        ends = torch.ones_like(tokens, dtype=torch.bool) if last else batch.ends(tokens)

        # Which end: the first G alone may, the others stand by for those that do.
        just = ends & (torch.arange(count, device=device) < beams)
        candidates = found / length**rules.length_penalty + ~is_open * NEVER + ~just * NEVER
        merged = torch.cat([finished_scores, candidates], 1)
        finished_scores, chosen = merged.topk(beams)
        finished = torch.cat([finished, texts], 1).gather(1, chosen[:, :, None].expand(-1, -1, running.shape[2]))
        is_finished = torch.cat([is_finished, just], 1).gather(1, chosen)
        if last:
            break

        # Which go on.
        going = found + ends * NEVER
        chosen = going.topk(beams).indices
        running = texts.gather(1, chosen[:, :, None].expand(-1, -1, running.shape[2]))
        running_scores = going.gather(1, chosen)
        decoder.follow(parents.gather(1, chosen), place)

        # A source is open as long as its best beam could still be better than the worst that has ended.
        worst = torch.where(is_finished, finished_scores.amin(1, keepdim=True), NEVER)
        is_open &= (running_scores[:, :1] / length**rules.length_penalty > worst).any(1, keepdim=True)
        if place % interval == interval - 1:
            keep = batch.those_left(~is_open[:, 0], finished[:, 0])
            if keep is None:
                continue
            if not len(keep):
                return batch.finish()
            decoder.keep(keep)
            running, finished, running_scores, finished_scores, is_finished, is_open = (
                x.index_select(0, keep)
                for x in (running, finished, running_scores, finished_scores, is_finished, is_open)
            )
    return batch.finish(finished[:, 0])


class _Batch:
    """Which of the rows of a batch are still written, and what was written of all."""

    def __init__(self, rows: int, rules: Rules, *, device: torch.device) -> None:
        self._rules = rules
        self._ends = torch.tensor(rules.ends, device=device)
        self._left = torch.arange(rows, device=device)
        self._result = self.empty(rows)

    def empty(self, *shape: int) -> torch.Tensor:
        """(*shape, 1 + T) the start, and then padding."""
        ids = torch.full((*shape, 1 + self._rules.steps), self._rules.padding, device=self._left.device)
        ids[..., 0] = self._rules.start
        return ids

    def ends(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens == self._ends if len(self._ends) == 1 else torch.isin(tokens, self._ends)

    def those_left(self, ended: torch.Tensor, written: torch.Tensor) -> torch.Tensor | None:
        """(b,) which of the rows are to be kept; None: all. What is written of those that leave is taken down."""
        count = int(ended.sum())
        if count * LEAVING < len(ended):
            return None
        self._result.index_copy_(0, self._left, written)
        keep = (~ended).nonzero()[:, 0]
        self._left = self._left.index_select(0, keep)
        return keep

    def finish(self, written: torch.Tensor | None = None) -> torch.Tensor:
        """All rows, as wide as the longest."""
        if written is not None:
            self._result.index_copy_(0, self._left, written)
        is_end = self.ends(self._result[:, 1:])
        lengths = torch.where(is_end.any(1), is_end.int().argmax(1) + 1, self._rules.steps)
        return self._result[:, : 1 + int(lengths.max())]
