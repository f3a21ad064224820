"""Ranks without a launcher: shares, seeds, communication and the environment."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.tiny_source import TinySource
from touchstone.engines.evaluation import gather_shares
from touchstone.engines.order import training_batches
from touchstone.engines.ranks import Ranks, joined
from touchstone.engines.session import divisor
from touchstone.engines.training import EngineError
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import Pipeline
from touchstone.pipelines.seq2seq import WrittenPrediction
from touchstone.pipelines.token_classification import TokenPrediction
from touchstone.suite.reproducibility.tiny import tiny_pipeline


def pipeline(train: int) -> Pipeline:
    kind = PIPELINES["token-classification"]
    return kind(TinySource(train=train), options=kind.Options(max_length=64), seed=3)


def ids(batch: dict[str, Any]) -> list[list[int]]:
    rows = zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
    return [[token for token, real in zip(row, mask, strict=True) if real] for row, mask in rows]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("train", [1, 7, 12])
def test_ranks_divide_each_micro_batch(train: int, world: int) -> None:
    whole = list(training_batches(pipeline(train), batch_size=3, seed=0, ranks=Ranks()))
    shares = [
        list(training_batches(pipeline(train), batch_size=3, seed=0, ranks=Ranks(rank, world))) for rank in range(world)
    ]

    assert [len(whole)] * world == [len(share) for share in shares], "a rank without a batch would be waited for"
    for expected, *parts in zip(whole, *shares, strict=True):
        counts = [part["size"].examples for part in parts]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == expected["size"].examples
        assert sum(part["size"].items for part in parts) == expected["size"].items
        assert sum(part["size"].tokens for part in parts) == expected["size"].tokens
        assert sorted(ids(expected)) == sorted(row for part in parts if part["size"].examples for row in ids(part))


@pytest.mark.parametrize("task", list(PIPELINES))
def test_a_rank_without_examples_gets_a_stand_in_of_weight_zero(task: str) -> None:
    (batch, *_) = training_batches(tiny_pipeline(task), batch_size=1, seed=0, ranks=Ranks(1, 2))

    assert batch["size"][:3] == (0, 0, 0)
    assert len(batch["input_ids"]) == 1, "there must be something to pass through the model"
    assert divisor(batch, 5) == math.inf


def test_divisor_is_the_items_of_the_step() -> None:
    (batch, *_) = training_batches(pipeline(4), batch_size=4, seed=0, ranks=Ranks())
    assert divisor(batch, 5) == 5


def test_ranks_and_runs_have_different_seeds() -> None:
    seeds = [Ranks(rank, 8).seed(seed) for rank in range(8) for seed in range(10)]

    assert seeds[:10] == list(range(10)), "rank 0 draws as a process of its own does"
    assert len(set(seeds)) == 80
    assert all(0 <= seed < 2**32 for seed in seeds), "what NumPy can be seeded with"


@pytest.mark.parametrize(
    ("world", "name", "own"), [(1, "cuda", "cuda"), (4, "cuda", "cuda:2"), (4, "cpu", "cpu"), (4, "cuda:0", "cuda:0")]
)
def test_own_device_is_the_gpu_of_the_local_rank(world: int, name: str, own: str) -> None:
    assert Ranks(min(2, world - 1), world, local_rank=2).own_device(name) == own


def test_communication_works_in_a_single_process() -> None:
    alone = Ranks.current()
    assert Ranks(0, 1, 0) == alone
    assert [1, 0.5] == alone.sum([1, 0.5]) == alone.max([1, 0.5])
    assert alone.each(3) == [3]
    assert alone.gather({"a": 1}) == [{"a": 1}]
    assert alone.from_first(lambda: "made") == "made"
    alone.wait()


@pytest.mark.parametrize(
    "predictions",
    [
        [TokenPrediction(np.array([1, 0, 2]), 1.5, 3), TokenPrediction(np.array([], dtype=np.int64), 0.1 + 0.2, 0)],
        [WrittenPrediction("Où ?\n", 3, math.inf, 2), WrittenPrediction("", 0, math.nan, 0)],
    ],
)
def test_gather_shares_sends_predictions_as_json(predictions: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def gather(self: Ranks, value: Any) -> list[Any]:
        sent.append(json.loads(json.dumps(value)))
        return sent if self.first else []

    monkeypatch.setattr(Ranks, "gather", gather)
    second = Ranks(1, 2)
    assert gather_shares({1: predictions[1]}, ranks=second) == []
    shares = gather_shares({0: predictions[0]}, ranks=replace(second, rank=0))

    found = {index: prediction for share in shares for index, prediction in share.items()}
    for index, prediction in enumerate(predictions):
        assert type(prediction) is type(found[index])
        for expected, got in zip(prediction, found[index], strict=True):
            np.testing.assert_array_equal(got, expected)
            assert getattr(expected, "dtype", None) == getattr(got, "dtype", None)


ENVIRONMENT = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize("name", list(ENVIRONMENT))
def test_joined_names_a_missing_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in ENVIRONMENT.items():
        monkeypatch.setenv(key, value)
    for key in (name, "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(EngineError, match=f"{name} is not set"), joined("cpu"):
        pass


def test_joined_refuses_a_process_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in ENVIRONMENT.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("LOCAL_RANK", "99")
    with (
        pytest.raises(EngineError, match="there is no GPU for process 99 of this node: torch finds"),
        joined("cuda"),
    ):
        pass


def test_joined_reads_slurms_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(key, "")  # so that what is set here ends with this test
        monkeypatch.delenv(key)
    for key, value in {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    joins: list[dict[str, Any]] = []
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend, **how: joins.append(how))
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    with joined("cpu"):
        pass
    assert (joins[0]["rank"], joins[0]["world_size"]) == (5, 8)
