"""Utilisation and floor: right sums of what was counted and measured, and no number where something is not known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.samples import rates, training_run, work
from tests.support.tiny_source import TinySource
from touchstone.engines import engine_names, load_engine
from touchstone.engines.ranks import Ranks
from touchstone.engines.training import Execution, Recipe
from touchstone.pipelines import PIPELINES
from touchstone.records import rates as probe
from touchstone.records.efficiency import NOT_COUNTED, Rates, efficiency_of
from touchstone.records.rates import STATE_BYTES, measure_rates, together
from touchstone.runs import job

# Sums ----------------------------------------------------------------------------------------------------------------


def test_the_floor_is_arithmetic_and_then_the_optimizers_bytes() -> None:
    found = efficiency_of(work(), rates=rates(), train_seconds=2.0)

    assert found.floor is not None
    assert pytest.approx(
        (found.floor.arithmetic_seconds, found.floor.optimizer_seconds, found.floor.seconds, found.floor.fraction)
    ) == (0.5, 0.1, 0.6, 0.3)
    assert found.floor.optimizer_bytes == 5 * 10**9
    assert found.utilisation == pytest.approx(1e11 / 2.0 / 200e9)
    assert (found.peak_flops_per_second, found.peak_source) == (200e9, "512 x 512")
    assert found.reason is None
    assert "labelled places" in found.formula


def test_a_run_twice_as_fast_is_twice_as_near_to_the_same_floor() -> None:
    slow, fast = (efficiency_of(work(), rates=rates(), train_seconds=seconds).floor for seconds in (8.0, 4.0))

    assert slow is not None
    assert fast is not None
    assert (slow.seconds, 2 * slow.fraction) == (fast.seconds, fast.fraction)


@pytest.mark.parametrize("missing", ["work", "gemm", "memory", "everything", "time"])
def test_what_is_not_known_gives_no_number(missing: str) -> None:
    known = Rates(reason="no probe for device mps") if missing == "everything" else rates()
    if missing in ("gemm", "memory"):
        known = rates(**{missing: None})
    found = efficiency_of(
        None if missing == "work" else work(),
        rates=known,
        train_seconds=0.0 if missing == "time" else 2.0,
        reason="WorkError: attention of its own" if missing == "work" else None,
    )

    assert found.floor is None
    assert (missing == "memory") == (found.utilisation is not None)
    assert (missing == "work") == (found.flops is None) == (found.formula == NOT_COUNTED)
    reasons = {"work": "no flops: WorkError: attention of its own", "everything": "no rates: no probe for device mps"}
    assert reasons.get(missing) == found.reason


# The probe -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_probe_finds_rates_that_a_machine_can_have(precision: str) -> None:
    found = measure_rates("cpu", precision=precision, state_bytes=2**22)

    assert found.reason is None
    # Between a microcontroller and more than any machine of today.
    for rate, low, high in ((found.gemm, 1e7, 1e16), (found.attention, 1e6, 1e16), (found.memory, 1e7, 1e14)):
        assert rate is not None
        assert low < rate.per_second < high
        assert rate.source.startswith("measured: ")
        assert f", {torch.get_num_threads()} thread" in rate.source


def test_in_half_precision_the_products_of_float32_count_where_they_are_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    def gemm(_: torch.device, dtype: torch.dtype) -> Any:
        return probe.Rate(per_second=2e9 if dtype == torch.float32 else 1e9, source=str(dtype))

    monkeypatch.setattr(probe, "_gemm", gemm)
    found = measure_rates("cpu", precision="bf16", state_bytes=2**16)

    assert found.gemm is not None
    assert found.gemm.per_second == 2e9, "bfloat16 that is emulated is no peak"


def test_memory_is_measured_with_what_the_optimizer_goes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def memory(_: torch.device, state_bytes: int) -> Any:
        sizes.append(state_bytes)
        return probe.Rate(per_second=1.0, source="")

    monkeypatch.setattr(probe, "_memory", memory)
    for given in (1, 2**24, 2**40):
        measure_rates("cpu", precision="fp32", state_bytes=given)

    assert sizes == [STATE_BYTES[0], 2**24, STATE_BYTES[1]]


def test_the_fastest_of_several_tries_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour that steals most of the time of most tries."""
    tries = iter([1.0, 0.5, 9.0, 9.0, 0.25, 9.0, 9.0])
    monkeypatch.setattr(probe, "_timed", lambda call, device, *, calls: next(tries))
    monkeypatch.setattr(probe, "LEAST_TRIES", 5)

    assert probe._fastest(lambda: None, torch.device("cpu"), seconds=0.0) == 0.25


def test_a_short_call_is_repeated_until_it_can_be_timed() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    assert 0 < probe._fastest(call, torch.device("cpu"), seconds=0.0) < 1e-3
    assert calls > 100


def test_a_slow_device_is_not_asked_for_large_products(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def slow(call: Any, device: torch.device, *, seconds: float) -> float:
        sizes.append(call.args[0].shape[0])
        return 0.2  # 1.3 GFLOP/s

    monkeypatch.setattr(probe, "_fastest", slow)
    rate = probe._gemm(torch.device("cpu"), torch.float32)

    assert sizes == [512]
    assert rate.per_second == pytest.approx(2 * 512**3 / 0.2)


def test_the_probe_draws_from_no_global_generator() -> None:
    before = torch.get_rng_state()
    measure_rates("cpu", precision="fp32", state_bytes=2**16)

    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("device", "precision", "reason"),
    [("mps", "fp32", "no probe for device mps"), ("cpu", "fp16", "fp16 is not trained on cpu")],
)
def test_a_device_without_a_probe_has_no_rates_and_a_reason(device: str, precision: str, reason: str) -> None:
    assert Rates(reason=reason) == measure_rates(device, precision=precision, state_bytes=2**16)


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory\nTried"), MemoryError()])
def test_a_probe_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(probe, "_memory", fail)
    found = measure_rates("cpu", precision="fp32", state_bytes=2**16)

    assert found.gemm is None
    assert found.reason is not None
    assert f"the probe failed: {type(error).__name__}" in found.reason


class Two(Ranks):
    """The first of two ranks; the other says `said` to each question in turn."""

    def __init__(self, *said: list[float]) -> None:
        super().__init__(rank=0, world=2)
        object.__setattr__(self, "said", iter(said))

    def sum(self, values: Any) -> list[float]:
        return [float(own) + other for own, other in zip(values, next(self.said), strict=True)]


def test_ranks_have_the_sum_of_their_rates() -> None:
    found = together(rates(), ranks=Two([1, 1, 1], [100e9, 50e9, 30e9]))

    assert found.gemm is not None
    assert found.memory is not None
    assert (found.gemm.per_second, found.memory.per_second, found.reason) == (300e9, 80e9, None)
    assert found.gemm.source == "512 x 512; the sum of 2 ranks"
    assert rates() == together(rates(), ranks=Ranks())


def test_where_a_rank_has_no_rates_there_is_no_sum() -> None:
    assert Rates(reason="another rank has none") == together(rates(), ranks=Two([0, 0, 0], [0, 0, 0]))
    assert Rates(reason="too little memory") == together(
        Rates(reason="too little memory"), ranks=Two([1, 1, 1], [1, 1, 1])
    )


# Of a real run -------------------------------------------------------------------------------------------------------


def pipeline() -> Any:
    kind = PIPELINES["token-classification"]
    return kind(TinySource(), options=kind.Options(max_length=64), seed=3)


@pytest.mark.parametrize("engine", list(engine_names()))
def test_no_engine_is_faster_than_the_floor(engine: str) -> None:
    pipe, execution = pipeline(), Execution(seed=1)
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=1e-3)
    found = job.efficiency(pipe, load_engine(engine).train(pipe, recipe=recipe, execution=execution), execution)

    assert found.reason is None
    assert found.floor is not None
    assert 0 < found.floor.fraction < 1


def test_a_model_that_cannot_be_counted_still_has_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise KeyError("last_hidden_state")

    monkeypatch.setattr(job, "minimum_work", fail)
    monkeypatch.setattr(job, "measure_rates", lambda *_, **__: rates())
    found = job.efficiency(pipeline(), training_run(), Execution(seed=1))

    assert found.flops is None
    assert found.reason is not None
    assert found.reason.startswith("no flops: KeyError: 'last_hidden_state'")
