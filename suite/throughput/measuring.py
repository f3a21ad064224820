"""Time a stage and its peers in turns, so that changes in the speed of the machine affect all of them alike."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from touchstone.records.timing import Goal, Growth, Peer, Rounds, Stage

STAGES = (
    "tokenize-and-align", "align", "merge", "pad", "score-entities",
    "tokenize-text", "chunk", "mask-tokens", "mask-words",
    "tokenize-and-cut", "cut-documents", "causal-labels", "key-weights",
    "tokenize-and-window", "window", "answer", "score-answers",
    "pad-pairs", "shift", "clean", "bleu", "rouge",
    "pack", "pack-batches",
)  # fmt: skip
"""The stages that are timed. A record is written only if all of them were."""
ROUNDS = 5
WARM_UP = 1
SCALES = (1, 10, 100)
GROWTH_TOKENS = 20_000
"""Tokens at scale 1: few enough for scale 100 to be fast, and enough for the overhead of the calls not to matter."""
GROWTH_ROUNDS = 3
MAX_TIME_GROWTH = 4.0
"""How much the time per token may grow from scale 1 or 10 to scale 100. A quadratic stage grows by a factor of 10.

Time is measured relative to copying the data, because above some size fresh memory makes everything slower."""
MAX_MEMORY_GROWTH = 1.3
"""How much the memory per token may grow from scale 10 to scale 100. Memory is counted exactly, up to rounding."""

Call = Callable[[], object]
AtScale = Callable[[int], tuple[Call, int]]
"""From a number of tokens to a call of the stage on about as many, and their exact number."""


@dataclass(frozen=True)
class Method:
    """One implementation of a stage, or what it is compared with.

    Attributes:
        what: description for the record.
        run: calls it once.
        tokens: the number of tokens that one call processes.
    """

    what: str
    run: Call
    tokens: int


def time_in_turns(
    benchmark: Any,
    name: str,
    *,
    ours: Method,
    peers: dict[Peer, Method],
    goal: Goal | None = None,
    growth: AtScale | None = None,
) -> Stage:
    """Time rounds of our stage with pytest-benchmark, each after one round of every peer.

    Args:
        benchmark: the fixture. If benchmarks are disabled, everything is called once and not timed.
        name: one of `STAGES`.

    Raises:
        ValueError: the name is not in `STAGES`.
    """
    if name not in STAGES:
        raise ValueError(f"{name!r} is not in STAGES; add it")
    seconds: dict[Peer, list[float]] = {peer: [] for peer in peers}

    def run_peers() -> None:
        for peer, method in peers.items():
            seconds[peer].append(_time(method.run))
        gc.collect()

    gc.collect()
    gc.freeze()  # keep the garbage collector away from the data while timing
    try:
        benchmark.group = name
        benchmark.pedantic(ours.run, setup=run_peers, rounds=ROUNDS, warmup_rounds=WARM_UP)
        timed = [float(second) for second in benchmark.stats.stats.data] if benchmark.stats is not None else []
        own = timed or [_time(ours.run)]
        stage = Stage(
            name=name,
            ours=Rounds(what=ours.what, tokens=ours.tokens, seconds=tuple(own)),
            peers={
                peer: Rounds(what=method.what, tokens=method.tokens, seconds=tuple(seconds[peer][-len(own) :]))
                for peer, method in peers.items()
            },
            goal=goal,
            growth=() if growth is None else tuple(_grow(growth, tokens=GROWTH_TOKENS * scale) for scale in SCALES),
        )
    finally:
        gc.unfreeze()
    benchmark.extra_info["ns_per_token"] = round(stage.ours.ns_per_token, 3)
    benchmark.extra_info |= {f"times_{peer}": round(stage.ratio(peer), 5) for peer in peers}
    return stage


def problems(stage: Stage) -> list[str]:
    """Return the problems of a stage: a goal that no round reached, or a cost that grows faster than the data."""
    found = []
    if stage.reached is False:
        assert stage.goal is not None
        least, largest = stage.spread(stage.goal.peer)
        found.append(
            f"{stage.name} takes {least:.3g} to {largest:.3g} times as long as {stage.peers[stage.goal.peer].what}, "
            f"but the goal is {stage.goal.most:g}"
        )
    if stage.growth:
        *smaller, last = stage.growth
        if last.copies > MAX_TIME_GROWTH * max(each.copies for each in smaller):
            found.append(f"{stage.name} takes as long as {_by_scale(stage.growth, 'copies')} copies: not linear")
        if last.bytes_per_token > MAX_MEMORY_GROWTH * smaller[-1].bytes_per_token:
            found.append(f"{stage.name}: a token needs {_by_scale(stage.growth, 'bytes_per_token')} bytes: not linear")
    return found


def _by_scale(growth: Sequence[Growth], name: str) -> str:
    return ", ".join(f"{getattr(each, name):.1f} (of {each.tokens:,})" for each in growth)


def _time(run: Call) -> float:
    gc.collect()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _grow(at_scale: AtScale, *, tokens: int) -> Growth:
    run, count = at_scale(tokens)
    values = np.arange(count)
    run()
    timed = [(_time(run), _time(values.copy)) for _ in range(GROWTH_ROUNDS)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    seconds, copies = zip(*timed, strict=True)
    return Growth(tokens=count, seconds=seconds, copy_seconds=copies, peak_bytes=max(peak - before, 0))
