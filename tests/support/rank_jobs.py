"""Jobs for several ranks, for `test_launching`. Each rank runs in a process that a launcher started."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from touchstone.engines import load_engine
from touchstone.engines.ranks import Ranks
from touchstone.engines.training import Execution, Progress, Recipe, TrainingRun
from touchstone.suite.reproducibility.tiny import tiny_pipeline

Message = dict[str, Any]


def talk(payload: Message, send: Any) -> Message:
    """Return the results of all kinds of communication between ranks, and then of small runs."""
    ranks = Ranks.current()
    send({"step": 1})
    talk = {
        "sum": ranks.sum([ranks.rank + 1, 0.5]),
        "max": ranks.max([ranks.rank, -ranks.rank]),
        "each": ranks.each(10 * ranks.rank),
        "gathered": ranks.gather({"rank": ranks.rank, "text": "é" * ranks.rank}),
        "first": ranks.from_first(lambda: [ranks.rank, 1.5, float("inf")]),
        "seeds": ranks.each(ranks.seed(7)),
    }
    summaries = [summary(train(**case)) for case in payload["cases"]]
    # A list, not a generator: every rank must take part in every call.
    agreed = all([ranks.from_first(lambda own=own: own) == own for own in summaries])  # type: ignore[misc]  # noqa: C419
    return talk | {"runs": summaries, "all_know": [bool(one) for one in ranks.each(agreed)]}


def train(
    *, engine: str, task: str, recipe: Message, train: int, dropout: float = 0.0, save: str = "", stop: bool = False
) -> TrainingRun:
    """Train; with `stop`, interrupt all ranks after the second epoch, when the first is saved."""
    evaluations = 0

    def report(progress: Progress) -> None:
        nonlocal evaluations
        evaluations += progress.phase == "evaluate" and progress.step == 0
        if stop and evaluations == 3:
            raise InterruptedError

    save_dir = Path(save) if save else None
    execution = Execution(seed=7, eval_batch_size=4, save_dir=save_dir, resume=save_dir is not None)
    try:
        return load_engine(engine).train(
            tiny_pipeline(task, train=train, dropout=dropout),
            recipe=Recipe(**recipe),
            execution=execution,
            report=report,
        )
    except InterruptedError:
        return TrainingRun()


def summary(run: TrainingRun) -> Message:
    """Return a run as plain data, without times and memory."""
    weights = [] if run.model is None else [float(value.double().norm()) for value in run.model.state_dict().values()]
    return {
        "losses": [point.loss for point in run.trajectory],
        "counts": [[point.samples, point.tokens] for point in run.trajectory],
        "scores": [[[score.name, score.n, score.value] for score in e.scores] for e in run.evaluations],
        "weights": weights,
        "held": len(run.host_bytes),
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
    pids = [int(pid) for pid in ranks.each(os.getpid())]
    send({"pids": [*pids, os.getppid()]})
    time.sleep(600)
    return {}
