"""Jobs for several ranks, for `test_launching`: each rank runs them in a process that a launcher started."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from reference.engines import ENGINES
from reference.engines.ranks import Ranks
from reference.engines.training import Execution, Progress, Recipe, TrainingRun
from suite.reproducibility.tiny import tiny_pipeline

Message = dict[str, Any]


def talk(payload: Message, send: Any) -> Message:
    """Everything that ranks can say to each other."""
    ranks = Ranks.current()
    send({"step": 1})
    return {
        "world": ranks.world,
        "sum": ranks.sum([ranks.rank + 1, 0.5]),
        "max": ranks.max([ranks.rank, -ranks.rank]),
        "each": ranks.each(10 * ranks.rank),
        "gathered": ranks.gather({"rank": ranks.rank, "text": "é" * ranks.rank}),
        "first": ranks.from_first(lambda: [ranks.rank, 1.5, float("inf")]),
        "seeds": ranks.each(ranks.seed(7)),
        "device": ranks.own_device("cuda"),
    }


def second_fails(payload: Message, send: Any) -> Message:
    ranks = Ranks.current()
    if ranks.rank == 1:
        raise ValueError("the data has no column 'tags'")
    ranks.wait()
    return {}


def second_killed(payload: Message, send: Any) -> Message:
    ranks = Ranks.current()
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.wait()
    return {}


def hang(payload: Message, send: Any) -> Message:
    ranks = Ranks.current()
    pids = ranks.each(os.getpid())
    send({"pids": [int(pid) for pid in pids]})
    if ranks.rank == 0:
        time.sleep(600)
    ranks.wait()
    return {}


def curves(payload: Message, send: Any) -> Message:
    """Losses and scores of small runs. Rank 0 tells them; each rank says what it held itself."""
    runs = [_run(**case) for case in payload["cases"]]
    ranks = Ranks.current()
    summaries = [summary(run) for run in runs]
    agree = [ranks.from_first(lambda told=told: told) == told for told in summaries]  # type: ignore[misc]
    return {"runs": summaries, "all_ranks_know": bool(ranks.sum([all(agree)])[0] == ranks.world)}


def _run(
    *,
    engine: str,
    task: str,
    recipe: Message,
    train: int,
    dropout: float,
    save_dir: str | None = None,
    interrupt: bool = False,
) -> TrainingRun:
    execution = Execution(seed=7, eval_batch_size=4, save_dir=save_dir and Path(save_dir), resume=save_dir is not None)
    saves = 0

    def report(progress: Progress) -> None:
        nonlocal saves
        saves += progress.phase == "save"
        if interrupt and saves and progress.phase == "evaluate":
            raise InterruptedError("in the second epoch")

    pipeline = tiny_pipeline(task, train=train, dropout=dropout)
    try:
        return ENGINES[engine](pipeline, recipe=Recipe(**recipe), execution=execution, report=report)
    except InterruptedError:
        return TrainingRun()


def summary(run: TrainingRun) -> Message:
    """Plain data of a run, without times and memory."""
    return {
        "losses": [point.loss for point in run.trajectory],
        "counts": [[point.samples, point.tokens] for point in run.trajectory],
        "evaluations": [[e.epoch, [[score.name, score.n, score.value] for score in e.scores]] for e in run.evaluations],
        "steps": len(run.step_seconds),
        "hosts": len(run.host_bytes),
    }
