"""Runs in two processes that torchrun starts: the same numbers as one process, and one cause if a rank fails."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import rank_jobs
from tests.support.processes import Stopping, assert_gone
from touchstone.engines import engine_names
from touchstone.runs import distributed_launch, isolation
from touchstone.runs.distributed_launch import run_launched
from touchstone.runs.isolation import Outcome

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
STANDALONE = (*TORCHRUN, "--standalone")

# Seven examples in micro-batches of three: the ranks get 2 and 1 of each, and the second rank none of the last.
UNEVEN = {"epochs": 2, "batch_size": 3, "accumulation": 2, "learning_rate": 2e-3, "epsilon": 1e-8}
# Adam with a large epsilon is close to gradient descent, so it does not hide a wrong scale of the gradient.
SCALE_SENSITIVE = {"epsilon": 1.0, "max_grad_norm": 1e6, "learning_rate": 0.1, "schedule": "constant"}
TASKS = ("token-classification", "causal-lm", "translation")


def launched(job: str, log: Path, *, launcher: tuple[str, ...] = STANDALONE, **keywords: Any) -> Outcome:
    payload = {"device": "cpu", **keywords.pop("payload", {})}
    return run_launched(launcher, f"tests.support.rank_jobs:{job}", payload=payload, log=log, **keywords)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "ranks.log"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launched")


CURVES = [
    {"engine": engine, "task": task, "recipe": UNEVEN | scale, "train": 7}
    for engine in engine_names()
    for task in TASKS
    for scale in ({}, SCALE_SENSITIVE)
]


def dropped(engine: str, **how: Any) -> dict[str, Any]:
    """Return a run with dropout, whose random draws must continue where they stopped."""
    return {"engine": engine, "task": "token-classification", "recipe": UNEVEN, "train": 7, "dropout": 0.1, **how}


@pytest.fixture(scope="module")
def two(folder: Path) -> dict[str, Any]:
    """Results of two ranks: all curves, then for each engine a whole run, a stopped run and its resumed rest."""
    cases = list(CURVES)
    for engine in engine_names():
        save = str(folder / engine)
        cases += [dropped(engine), dropped(engine, save=save, stop=True), dropped(engine, save=save)]
    outcome = launched("talk", folder / "talk.log", payload={"cases": cases})
    assert outcome.value is not None, outcome.report()
    return outcome.value


def test_ranks_communicate(two: dict[str, Any]) -> None:
    assert two["sum"] == [3.0, 1.0]
    assert two["max"] == [1.0, 0.0]
    assert two["each"] == [0.0, 10.0]
    assert two["gathered"] == [{"rank": 0, "text": ""}, {"rank": 1, "text": "é"}]
    assert [0, 1.5, float("inf")] == two["first"]
    assert 7 == two["seeds"][0] != two["seeds"][1]


@pytest.mark.parametrize("index", range(len(CURVES)), ids=["{engine}-{task}".format(**case) for case in CURVES])
def test_two_processes_train_as_one(two: dict[str, Any], index: int) -> None:
    got, expected = two["runs"][index], rank_jobs.summary(rank_jobs.train(**CURVES[index]))

    assert len(expected["losses"]) == len(got["losses"])
    # Rounding of sums in another order: 1e-6. A gradient that is averaged over ranks where it should be summed changes
    # the weights of a scale-sensitive run by 1e-3 and more.
    np.testing.assert_allclose(got["losses"], expected["losses"], atol=1e-5)
    if CURVES[index]["recipe"]["epsilon"] == 1.0:  # plain Adam makes a step of the rounding of a gradient that is 0
        np.testing.assert_allclose(got["weights"], expected["weights"], atol=1e-5)
    assert got["counts"] == expected["counts"], "examples and tokens are those of both"
    assert [[score[:2] for score in scores] for scores in expected["scores"]] == [
        [score[:2] for score in scores] for scores in got["scores"]
    ], "an example was lost or counted twice"
    for one, other in zip(expected["scores"], got["scores"], strict=True):
        assert [value for *_, value in other] == pytest.approx([value for *_, value in one], rel=1e-4)
    assert got["held"] == 2


def test_every_rank_has_the_whole_run(two: dict[str, Any]) -> None:
    assert two["all_know"] == [True, True]


@pytest.mark.parametrize("engine", list(engine_names()))
def test_two_processes_resume_where_they_stopped(two: dict[str, Any], engine: str) -> None:
    start = len(CURVES) + 3 * list(engine_names()).index(engine)
    whole, stopped, resumed = two["runs"][start : start + 3]

    assert stopped["losses"] == []
    assert whole == resumed, "each rank must continue its own dropout draws"


def test_one_process_refuses_a_checkpoint_of_two(two: dict[str, Any], folder: Path) -> None:
    with pytest.raises(Exception, match="by a run with world_size 2, this one has 1"):
        rank_jobs.train(**dropped("loop", save=str(folder / "loop")))


def test_the_cause_is_the_rank_that_failed_first(log: Path) -> None:
    outcome = launched("second_fails", log)
    assert outcome.failure is not None
    assert outcome.failure.cause.startswith("rank 1 of 2: ValueError: the data has no column 'tags' (")
    assert "Traceback" in outcome.report(), "the traceback of this rank, whatever the others write to the log later"
    assert "in second_fails" in outcome.report()


def test_the_cause_is_the_rank_that_was_killed(log: Path) -> None:
    outcome = launched("second_killed", log)
    assert outcome.failure is not None
    assert outcome.failure.cause == "rank 1 of 2 was killed (SIGKILL), most likely because memory ran out"


def test_ranks_that_hang_are_killed_and_their_stacks_are_shown(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "GRACE_SECONDS", 0.3)
    time_out = Stopping(isolation._TimedOut())
    outcome = launched("hang", log, timeout=600, on_message=time_out)
    assert outcome.failure is not None
    assert outcome.failure.kind == "timeout"
    assert outcome.report().count(" in hang\n") == 2, "both ranks' stacks, each by itself"
    assert len(set(time_out.pids)) == 3, "two ranks and their launcher"
    assert_gone(time_out.pids)


def test_an_interrupt_ends_ranks_and_launcher(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "GRACE_SECONDS", 0.3)
    interrupt = Stopping(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        launched("hang", log, on_message=interrupt)
    assert len(set(interrupt.pids)) == 3
    assert_gone(interrupt.pids)


def test_a_port_in_use_is_reported_with_the_remedy(log: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        failure = launched("talk", log, launcher=(*TORCHRUN, "--master-port", port)).failure
    assert failure is not None
    assert "before any of its processes reported" in failure.cause
    assert "--standalone" in failure.cause


def test_a_launcher_that_does_not_set_rank_is_reported(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    failure = launched("talk", log, launcher=(sys.executable,)).failure
    assert failure is not None
    assert "RANK is not set: start the processes with torchrun" in failure.cause


def test_a_missing_launcher_is_reported(log: Path) -> None:
    failure = launched("talk", log, launcher=("/nowhere/torchrun",)).failure
    assert failure is not None
    assert failure.cause == "--launch: /nowhere/torchrun cannot be started: No such file or directory"


def test_a_launcher_that_starts_no_process_is_reported(log: Path) -> None:
    failure = launched("talk", log, launcher=("true",)).failure
    assert failure is not None
    assert failure.cause == "true ended with exit code 0 before any of its processes reported"


@pytest.mark.parametrize(
    ("cause", "follow_up"),
    [
        ("RuntimeError: [../gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer", True),
        ("DistBackendError: NCCL communicator was aborted", True),
        ("ValueError: the data has no column 'tags'", False),
    ],
)
def test_lost_connections_are_follow_up_errors(cause: str, follow_up: bool) -> None:
    assert distributed_launch._is_follow_up({"kind": "error", "cause": cause}) == follow_up
