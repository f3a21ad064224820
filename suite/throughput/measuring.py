"""Timing in turn: one round of each peer, one of ours, and again, so that a machine's moods fall on all alike."""

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
"""What is timed, and in a record: all of it, or there is none."""
ROUNDS = 5
WARM_UP = 1
SCALES = (1, 10, 100)
GROWTH_TOKENS = 20_000
"""Tokens at scale 1: little enough that scale 100 takes no time, and enough that the calls' own cost is none."""
GROWTH_ROUNDS = 3
MOST_TIME = 4.0
"""A token may cost so many times as much at scale 100 as at 10 or 1, in copies of the data: what is quadratic costs ten
times as much. In copies, for from some size on memory comes fresh from the system, which makes all of it dearer."""
MOST_MEMORY = 1.3
"""The same for memory at scale 100 and 10. It is counted, not measured: only what is rounded up differs."""

Run = Callable[[], object]
AtScale = Callable[[int], tuple[Run, int]]
"""Tokens wanted to the stage on so many, and how many they are in fact."""


@dataclass(frozen=True)
class Way:
    """One way to do it.

    Attributes:
        what: in words, for the record.
        run: does it once.
        tokens: that it goes through.
    """

    what: str
    run: Run
    tokens: int


def race(
    benchmark: Any,
    name: str,
    *,
    ours: Way,
    peers: dict[Peer, Way],
    goal: Goal | None = None,
    growth: AtScale | None = None,
) -> Stage:
    """Rounds of ours by pytest-benchmark, and before each of them one of every peer.

    Args:
        benchmark: the fixture. Where benchmarks are disabled all is run once, and nothing timed.
        name: one of `STAGES`.

    Raises:
        ValueError: another name.
    """
    if name not in STAGES:
        raise ValueError(f"{name!r} is none of STAGES: add it there")
    seconds: dict[Peer, list[float]] = {peer: [] for peer in peers}

    def run_peers() -> None:
        for peer, way in peers.items():
            seconds[peer].append(_time(way.run))
        gc.collect()

    gc.collect()
    gc.freeze()  # what the data holds is not to be walked through on somebody's time
    try:
        benchmark.group = name
        benchmark.pedantic(ours.run, setup=run_peers, rounds=ROUNDS, warmup_rounds=WARM_UP)
        timed = [float(second) for second in benchmark.stats.stats.data] if benchmark.stats is not None else []
        own = timed or [_time(ours.run)]
        stage = Stage(
            name=name,
            ours=Rounds(what=ours.what, tokens=ours.tokens, seconds=tuple(own)),
            peers={
                peer: Rounds(what=way.what, tokens=way.tokens, seconds=tuple(seconds[peer][-len(own) :]))
                for peer, way in peers.items()
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
    """What is wrong with it: a goal that no round reached, cost that grows faster than the data."""
    found = []
    if stage.reached is False:
        assert stage.goal is not None
        least, largest = stage.spread(stage.goal.peer)
        found.append(
            f"{stage.name} takes {least:.3g} to {largest:.3g} times as long as {stage.peers[stage.goal.peer].what}, "
            f"and {stage.goal.most:g} is the goal"
        )
    if stage.growth:
        *smaller, last = stage.growth
        if last.copies > MOST_TIME * max(each.copies for each in smaller):
            found.append(f"{stage.name} takes as long as {_by_scale(stage.growth, 'copies')} copies: not linear")
        if last.bytes_per_token > MOST_MEMORY * smaller[-1].bytes_per_token:
            found.append(f"{stage.name}: a token needs {_by_scale(stage.growth, 'bytes_per_token')} bytes: not linear")
    return found


def _by_scale(growth: Sequence[Growth], name: str) -> str:
    return ", ".join(f"{getattr(each, name):.1f} (of {each.tokens:,})" for each in growth)


def _time(run: Run) -> float:
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
