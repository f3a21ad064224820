"""Utilisation and floor: correct sums of counted work and measured rates, and no number without them."""

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
from touchstone.records import rates as machine_rates
from touchstone.records.efficiency import NOT_COUNTED, Rates, efficiency_of
from touchstone.records.rates import STATE_BYTES, measure_rates, sum_over_ranks
from touchstone.runs import job

# Sums ----------------------------------------------------------------------------------------------------------------


def test_the_floor_is_the_sum_of_arithmetic_and_optimizer_time() -> None:
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


def test_the_floor_is_twice_the_fraction_for_a_run_twice_as_fast() -> None:
    slow, fast = (efficiency_of(work(), rates=rates(), train_seconds=seconds).floor for seconds in (8.0, 4.0))

    assert slow is not None
    assert fast is not None
    assert (slow.seconds, 2 * slow.fraction) == (fast.seconds, fast.fraction)


@pytest.mark.parametrize("missing", ["work", "gemm", "memory", "everything", "time"])
def test_efficiency_has_no_number_for_what_is_not_known(missing: str) -> None:
    known = Rates(reason="rates cannot be measured on device mps") if missing == "everything" else rates()
    if missing in ("gemm", "memory"):
        known = rates(**{missing: None})
    found = efficiency_of(
        None if missing == "work" else work(),
        rates=known,
        train_seconds=0.0 if missing == "time" else 2.0,
        reason="WorkError: unknown attention" if missing == "work" else None,
    )

    assert found.floor is None
    assert (missing == "memory") == (found.utilisation is not None)
    assert (missing == "work") == (found.flops is None) == (found.formula == NOT_COUNTED)
    reasons = {
        "work": "no flops: WorkError: unknown attention",
        "everything": "no rates: rates cannot be measured on device mps",
    }
    assert reasons.get(missing) == found.reason


# Machine rates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_measure_rates_finds_plausible_rates(precision: str) -> None:
    found = measure_rates("cpu", precision=precision, state_bytes=2**22)

    assert found.reason is None
    # Between a microcontroller and more than any current machine.
    for rate, low, high in ((found.gemm, 1e7, 1e16), (found.attention, 1e6, 1e16), (found.memory, 1e7, 1e14)):
        assert rate is not None
        assert low < rate.per_second < high
        assert rate.source.startswith("measured: ")
        assert f", {torch.get_num_threads()} thread" in rate.source


def test_measure_rates_in_half_precision_uses_float32_products_if_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    def gemm(_: torch.device, dtype: torch.dtype) -> Any:
        return machine_rates.Rate(per_second=2e9 if dtype == torch.float32 else 1e9, source=str(dtype))

    monkeypatch.setattr(machine_rates, "_gemm", gemm)
    found = measure_rates("cpu", precision="bf16", state_bytes=2**16)

    assert found.gemm is not None
    assert found.gemm.per_second == 2e9, "emulated bfloat16 is not the peak"


def test_measure_rates_measures_memory_with_the_size_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def memory(_: torch.device, state_bytes: int) -> Any:
        sizes.append(state_bytes)
        return machine_rates.Rate(per_second=1.0, source="")

    monkeypatch.setattr(machine_rates, "_memory", memory)
    for given in (1, 2**24, 2**40):
        measure_rates("cpu", precision="fp32", state_bytes=given)

    assert sizes == [STATE_BYTES[0], 2**24, STATE_BYTES[1]]


def test_the_fastest_of_several_tries_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process takes most of the time of most tries."""
    tries = iter([1.0, 0.5, 9.0, 9.0, 0.25, 9.0, 9.0])
    monkeypatch.setattr(machine_rates, "_timed", lambda call, device, *, calls: next(tries))
    monkeypatch.setattr(machine_rates, "MIN_TRIES", 5)

    assert machine_rates._fastest(lambda: None, torch.device("cpu"), seconds=0.0) == 0.25


def test_a_short_call_is_repeated_until_it_can_be_timed() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    assert 0 < machine_rates._fastest(call, torch.device("cpu"), seconds=0.0) < 1e-3
    assert calls > 100


def test_large_products_are_skipped_on_a_slow_device(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def slow(call: Any, device: torch.device, *, seconds: float) -> float:
        sizes.append(call.args[0].shape[0])
        return 0.2  # 1.3 GFLOP/s

    monkeypatch.setattr(machine_rates, "_fastest", slow)
    rate = machine_rates._gemm(torch.device("cpu"), torch.float32)

    assert sizes == [512]
    assert rate.per_second == pytest.approx(2 * 512**3 / 0.2)


def test_measure_rates_leaves_the_global_generator_unchanged() -> None:
    before = torch.get_rng_state()
    measure_rates("cpu", precision="fp32", state_bytes=2**16)

    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("device", "precision", "reason"),
    [("mps", "fp32", "rates cannot be measured on device mps"), ("cpu", "fp16", "fp16 is not trained on cpu")],
)
def test_measure_rates_gives_a_reason_for_an_unsupported_device(device: str, precision: str, reason: str) -> None:
    assert Rates(reason=reason) == measure_rates(device, precision=precision, state_bytes=2**16)


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory\nTried"), MemoryError()])
def test_measure_rates_gives_a_reason_for_a_failure(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(machine_rates, "_memory", fail)
    found = measure_rates("cpu", precision="fp32", state_bytes=2**16)

    assert found.gemm is None
    assert found.reason is not None
    assert f"measuring the rates failed: {type(error).__name__}" in found.reason


class Two(Ranks):
    """The first of two ranks; `said` are the other rank's contributions to each sum in turn."""

    def __init__(self, *said: list[float]) -> None:
        super().__init__(rank=0, world=2)
        object.__setattr__(self, "said", iter(said))

    def sum(self, values: Any) -> list[float]:
        return [float(own) + other for own, other in zip(values, next(self.said), strict=True)]


def test_sum_over_ranks_adds_the_rates() -> None:
    found = sum_over_ranks(rates(), ranks=Two([1, 1, 1], [100e9, 50e9, 30e9]))

    assert found.gemm is not None
    assert found.memory is not None
    assert (found.gemm.per_second, found.memory.per_second, found.reason) == (300e9, 80e9, None)
    assert found.gemm.source == "512 x 512; the sum of 2 ranks"
    assert rates() == sum_over_ranks(rates(), ranks=Ranks())


def test_sum_over_ranks_has_no_sum_if_a_rank_has_no_rates() -> None:
    assert Rates(reason="another rank has no rates") == sum_over_ranks(rates(), ranks=Two([0, 0, 0], [0, 0, 0]))
    assert Rates(reason="too little memory") == sum_over_ranks(
        Rates(reason="too little memory"), ranks=Two([1, 1, 1], [1, 1, 1])
    )


# A real run -------------------------------------------------------------------------------------------------------


def pipeline() -> Any:
    kind = PIPELINES["token-classification"]
    return kind(TinySource(), options=kind.Options(max_length=64), seed=3)


@pytest.mark.parametrize("engine", list(engine_names()))
def test_every_engine_is_slower_than_the_floor(engine: str) -> None:
    pipe, execution = pipeline(), Execution(seed=1)
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=1e-3)
    found = job.measure_efficiency(pipe, load_engine(engine).train(pipe, recipe=recipe, execution=execution), execution)

    assert found.reason is None
    assert found.floor is not None
    assert 0 < found.floor.fraction < 1


def test_measure_efficiency_gives_a_reason_if_the_flops_cannot_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise KeyError("last_hidden_state")

    monkeypatch.setattr(job, "minimum_work", fail)
    monkeypatch.setattr(job, "measure_rates", lambda *_, **__: rates())
    found = job.measure_efficiency(pipeline(), training_run(), Execution(seed=1))

    assert found.flops is None
    assert found.reason is not None
    assert found.reason.startswith("no flops: KeyError: 'last_hidden_state'")
