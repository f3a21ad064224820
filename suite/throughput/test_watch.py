"""What `touchstone.watch` costs a training loop: rounds of the same steps with and without it, in turns.

The audit itself, which runs once after the watched steps, is not timed: its length does not depend on the training's.
"""

from __future__ import annotations

import gc
import statistics
import time
from typing import Any

import pytest
import torch
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertForTokenClassification

from touchstone.auditing.watch import Watcher
from touchstone.records.timing import WatchTime
from touchstone.suite.throughput.found import WATCHED

STEPS = 300
"""Enough for the first four, which are watched, not to be what is measured."""
ROUNDS = 3
ROWS, POSITIONS = 8, 32
MOST = 1.05
"""The goal: training with `watch` takes at most this many times as long as without."""


class _Silent(Watcher):
    """A watcher that observes and makes no report."""

    def judge(self) -> None:
        self._recorder.release()


def _train(watcher: Watcher | None) -> float:
    """Take the steps of a small model, and return the seconds of CPU they took: other work does not disturb them."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=2000, hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128
    )
    model = BertForTokenClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(2000, (ROWS, POSITIONS))
    gc.collect()
    began = time.process_time()
    if watcher is not None:
        watcher.begin()
    model.train()
    for _ in range(STEPS):
        loss = model(input_ids=ids, labels=ids % 2).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.process_time() - began


def test_watch_costs_a_loop_almost_nothing(benchmark: Any, pytestconfig: pytest.Config) -> None:
    """As for the stages, the goal is missed if no round reached it."""
    plain: list[float] = []
    watched: list[float] = []

    def without() -> None:
        plain.append(_train(None))

    _train(None)
    benchmark.group = "watch"
    benchmark.pedantic(lambda: watched.append(_train(_Silent(object()))), setup=without, rounds=ROUNDS)
    found = WatchTime(steps=STEPS, seconds=tuple(watched), plain_seconds=tuple(plain), most=MOST)
    benchmark.extra_info |= {"steps": STEPS, "times_plain": round(statistics.median(found.ratios), 4)}
    pytestconfig.stash[WATCHED] = found
    if not found.reached:
        pytest.fail(
            f"training with touchstone.watch takes {min(found.ratios):.3g} to {max(found.ratios):.3g} times as long as "
            f"without, but the goal is {MOST:g}",
            pytrace=False,
        )
