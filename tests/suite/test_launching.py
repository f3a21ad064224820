"""Runs in two processes, started by torchrun as a user would: the same numbers, every example once, and one cause where
one of them falls."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.suite.test_running import assert_gone
from tests.support import rank_jobs
from touchstone.engines import engine_names
from touchstone.runs import distributed_launch as launching
from touchstone.runs import isolation as running
from touchstone.runs.distributed_launch import run_launched
from touchstone.runs.isolation import Outcome

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
STANDALONE = (*TORCHRUN, "--standalone")

# Seven examples, three at a time: 2 and 1 of each micro-batch for the ranks, and none of the last for the second.
UNEVEN = {"epochs": 2, "batch_size": 3, "accumulation": 2, "learning_rate": 2e-3, "epsilon": 1e-8}
# Adam with so large an epsilon is nearly gradient descent: it does not hide a gradient that is too large by a factor.
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
    """A run with dropout, whose draws must go on where they stopped."""
    return {"engine": engine, "task": "token-classification", "recipe": UNEVEN, "train": 7, "dropout": 0.1, **how}


@pytest.fixture(scope="module")
def two(folder: Path) -> dict[str, Any]:
    """What two ranks tell: of the curves, then by engine of a whole run, and of one that stopped and went on."""
    cases = list(CURVES)
    for engine in engine_names():
        save = str(folder / engine)
        cases += [dropped(engine), dropped(engine, save=save, stop=True), dropped(engine, save=save)]
    outcome = launched("talk", folder / "talk.log", payload={"cases": cases})
    assert outcome.value is not None, outcome.report()
    return outcome.value


def test_ranks_hear_of_each_other(two: dict[str, Any]) -> None:
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


def test_every_rank_knows_the_whole_run(two: dict[str, Any]) -> None:
    assert two["all_know"] == [True, True]


@pytest.mark.parametrize("engine", list(engine_names()))
def test_two_processes_go_on_where_they_stopped(two: dict[str, Any], engine: str) -> None:
    start = len(CURVES) + 3 * list(engine_names()).index(engine)
    whole, stopped, resumed = two["runs"][start : start + 3]

    assert stopped["losses"] == []
    assert whole == resumed, "each rank's dropout must go on with its own draws"


def test_a_checkpoint_of_two_processes_is_not_for_one(two: dict[str, Any], folder: Path) -> None:
    with pytest.raises(Exception, match="by a run with world_size 2, this one has 1"):
        rank_jobs.train(**dropped("loop", save=str(folder / "loop")))


def test_the_rank_that_fails_is_the_cause_and_not_those_that_miss_it(log: Path) -> None:
    outcome = launched("second_fails", log)
    assert outcome.failure is not None
    assert outcome.failure.cause.startswith("rank 1 of 2: ValueError: the data has no column 'tags' (")
    assert "Traceback" in outcome.report()


def test_a_rank_that_is_killed_is_the_cause(log: Path) -> None:
    outcome = launched("second_killed", log)
    assert outcome.failure is not None
    assert outcome.failure.cause == "rank 1 of 2 was killed (SIGKILL), most likely for want of memory"


def test_ranks_that_hang_tell_where_and_leave_no_process(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "GRACE_SECONDS", 0.3)
    pids: list[int] = []

    def time_is_up(message: dict[str, Any]) -> None:
        pids.extend(message["pids"])
        raise running._TimedOut

    outcome = launched("hang", log, timeout=600, on_message=time_is_up)
    assert outcome.failure is not None
    assert outcome.failure.kind == "timeout"
    assert outcome.report().count(" in hang\n") == 2, "both ranks' stacks, each by itself"
    assert len(set(pids)) == 3, "two ranks and their launcher"
    assert_gone(pids)


def test_an_interrupt_leaves_no_process(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "GRACE_SECONDS", 0.3)
    pids: list[int] = []

    def interrupt(message: dict[str, Any]) -> None:
        pids.extend(message["pids"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launched("hang", log, on_message=interrupt)
    assert len(set(pids)) == 3
    assert_gone(pids)


def test_a_port_in_use_is_told_with_the_remedy(log: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        failure = launched("talk", log, launcher=(*TORCHRUN, "--master-port", port)).failure
    assert failure is not None
    assert "no process of it had reported" in failure.cause
    assert "--standalone" in failure.cause


def test_a_launcher_that_numbers_nobody_is_told(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    failure = launched("talk", log, launcher=(sys.executable,)).failure
    assert failure is not None
    assert "RANK is not set: start the processes with torchrun" in failure.cause


def test_a_launcher_that_is_not_there_is_told(log: Path) -> None:
    failure = launched("talk", log, launcher=("/nowhere/torchrun",)).failure
    assert failure is not None
    assert failure.cause == "--launch: /nowhere/torchrun cannot be started: No such file or directory"


def test_a_launcher_that_starts_nothing_is_told(log: Path) -> None:
    failure = launched("talk", log, launcher=("true",)).failure
    assert failure is not None
    assert failure.cause == "true ended with exit code 0, and no process of it had reported"


@pytest.mark.parametrize(
    ("cause", "missed"),
    [
        ("RuntimeError: [../gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer", True),
        ("DistBackendError: NCCL communicator was aborted", True),
        ("ValueError: the data has no column 'tags'", False),
    ],
)
def test_who_only_missed_another_is_told_from_who_failed(cause: str, missed: bool) -> None:
    assert launching._only_missed_another({"kind": "error", "cause": cause}) == missed
