"""Verdicts: the prediction interval has the coverage it claims, in both directions."""

from __future__ import annotations

import datetime
import math
import statistics
import sys

import numpy as np
import pytest
from scipy import stats

from touchstone.specs.expectation import Card, Expectation, Measured, Published
from touchstone.specs.verdict import Verdict, judge

REFERENCE = (0.80, 0.82, 0.81, 0.79, 0.83)


def expected(*values: float, **changes: object) -> Expectation:
    fields: dict[str, object] = {
        "metric": "f1",
        "values": values,
        "seeds": tuple(range(len(values))),
        "higher_is_better": True,
        "spec_hash": "0" * 64,
        "provenance": Measured(
            hardware="h",
            software={},
            engine="loop",
            precision="fp32",
            date=datetime.date(2026, 1, 1),
            dataset_fingerprint="d",
        ),
    }
    return Expectation.model_validate(fields | changes)


def test_the_band_of_one_run_is_the_prediction_interval() -> None:
    mean, sd = statistics.fmean(REFERENCE), statistics.stdev(REFERENCE)
    half = 4.604094871415897 * sd * math.sqrt(1 + 1 / 5)  # t of 4 degrees of freedom at 0.995: 4.604 in tables

    verdict = judge([0.81], expectation=expected(*REFERENCE))

    assert verdict.low == pytest.approx(mean - half, rel=1e-10)
    assert verdict.high == pytest.approx(mean + half, rel=1e-10)
    assert (verdict.status, verdict.n, verdict.confidence) == ("as-expected", 1, 0.99)


def test_the_band_of_a_mean_narrows_with_the_runs() -> None:
    one = judge([0.81], expectation=expected(*REFERENCE))
    four = judge([0.81] * 4, expectation=expected(*REFERENCE))

    assert one.high is not None
    assert four.high is not None
    assert (four.high - 0.81) / (one.high - 0.81) == pytest.approx(math.sqrt((1 / 4 + 1 / 5) / (1 + 1 / 5)))


@pytest.mark.parametrize(
    ("higher_is_better", "value", "status"),
    [
        (True, 0.5, "worse"),
        (True, 0.99, "better-than-expected"),
        (False, 0.5, "better-than-expected"),
        (False, 0.99, "worse"),
    ],
)
def test_values_below_and_above_the_band_fail_with_different_statuses(
    higher_is_better: bool, value: float, status: str
) -> None:
    verdict = judge([value], expectation=expected(*REFERENCE, higher_is_better=higher_is_better))

    assert verdict.status == status
    assert verdict.failed


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize(("n", "k"), [(2, 1), (3, 3), (10, 1), (10, 4)])
def test_the_false_alarm_rate_is_one_in_a_hundred(n: int, k: int, scale: str) -> None:
    """10,000 draws of reference and runs from one distribution. The count of false alarms is binomial with p = 0.01;
    the interval is left by chance once in a million."""
    trials = 10_000
    draws = np.random.default_rng(20261123).normal(1.0, 0.1, size=(trials, n + k))
    if scale == "log":
        draws = np.exp(draws)

    alarms = sum(judge(row[n:].tolist(), expectation=expected(*row[:n].tolist(), scale=scale)).failed for row in draws)

    low, high = stats.binom.interval(1 - 1e-6, trials, 0.01)
    assert low <= alarms <= high


def test_judge_finds_a_shift_of_five_standard_deviations() -> None:
    """With 10 reference values, the band of one run extends 3.4 standard deviations to each side, so that 19 in 20
    shifts of 5 are found."""
    rng = np.random.default_rng(7)
    found = sum(
        judge([float(rng.normal(-5))], expectation=expected(*rng.normal(size=10).tolist())).status == "worse"
        for _ in range(1000)
    )

    assert found >= 850


def test_the_band_on_a_log_scale_is_computed_from_logarithms() -> None:
    ppl = (10.0, 11.0, 12.0, 13.0)
    plain = judge([math.log(11.5)], expectation=expected(*map(math.log, ppl)))
    log = judge([11.5], expectation=expected(*ppl, scale="log"))

    assert plain.low is not None
    assert plain.high is not None
    assert (log.low, log.high) == pytest.approx((math.exp(plain.low), math.exp(plain.high)))
    assert judge([10.0, 12.0], expectation=expected(*ppl, scale="log")).value == pytest.approx(math.sqrt(10 * 12))


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize(
    ("scale", "value"),
    [("linear", math.nan), ("linear", math.inf), ("linear", -math.inf), ("log", math.nan), ("log", math.inf)],
)
def test_a_diverged_run_is_worse_for_either_direction(value: float, higher_is_better: bool, scale: str) -> None:
    assert (
        judge([value], expectation=expected(*REFERENCE, scale=scale, higher_is_better=higher_is_better)).status
        == "worse"
    )


def test_infinities_of_both_signs_are_worse() -> None:
    assert judge([math.inf, -math.inf], expectation=expected(*REFERENCE)).status == "worse"


def test_the_band_is_clipped_only_for_display() -> None:
    wide = expected(0.90, 0.99, 0.95, upper=1.0, lower=0.0)

    verdict = judge([0.95], expectation=wide)

    assert verdict.high == 1.0
    assert "1]" in verdict.explanation
    assert judge([1.0], expectation=wide).status == "as-expected"


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_without_spread_only_an_equal_value_passes(scale: str) -> None:
    constant = expected(0.7, 0.7, 0.7, scale=scale)

    assert judge([0.7], expectation=constant).status == "as-expected"
    assert judge([0.7, 0.7], expectation=constant).status == "as-expected"
    verdict = judge([0.69], expectation=constant)
    assert verdict.status == "worse"
    assert "all 3 reference values are 0.7" in verdict.explanation
    assert "25%" in verdict.explanation  # one in four draws is the odd one out


@pytest.mark.parametrize(
    ("expectation", "reason"), [(None, "calibrate"), (expected(0.8), "a single reference value has no spread")]
)
def test_judge_gives_no_verdict_without_a_usable_expectation(expectation: Expectation | None, reason: str) -> None:
    verdict = judge([0.8], expectation=expectation, metric="f1")

    assert (verdict.status, verdict.metric, verdict.failed) == ("no-expectation", "f1", False)
    assert reason in verdict.explanation


def test_the_explanation_mentions_that_all_reference_runs_share_a_seed() -> None:
    published = Published(sources=tuple(Card(name=str(i), url="u") for i in range(5)))
    verdict = judge([0.81], expectation=expected(*REFERENCE, seeds=(42,) * 5, provenance=published))

    assert "all of seed 42" in verdict.explanation


def test_judge_refuses_an_empty_list_and_a_wrong_confidence() -> None:
    with pytest.raises(ValueError, match="no values"):
        judge([], expectation=None)
    with pytest.raises(ValueError, match="confidence 1"):
        judge([0.8], expectation=expected(*REFERENCE), confidence=1)


def test_judge_names_the_extra_that_installs_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)

    with pytest.raises(ModuleNotFoundError, match=r'scipy is not installed: pip install "touchstone\[suite\]"'):
        judge([0.8], expectation=expected(*REFERENCE))


def test_a_verdict_is_the_same_after_json() -> None:
    for value in (0.8, math.inf, math.nan):
        verdict = judge([value], expectation=expected(*REFERENCE))

        assert repr(verdict) == repr(Verdict.model_validate_json(verdict.model_dump_json(), strict=True))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_target_is_the_worse_end_of_a_one_sided_interval_and_may_be_exceeded(higher_is_better: bool, k: int) -> None:
    mean, sd = statistics.fmean(REFERENCE), statistics.stdev(REFERENCE)
    half = 2.131846786326649 * sd * math.sqrt(1 / k + 1 / 5)  # t of 4 degrees of freedom at 0.95: 2.132 in tables
    sign = 1 if higher_is_better else -1
    target = expected(*REFERENCE, higher_is_better=higher_is_better, target=True)

    def verdict(distance: float) -> Verdict:
        """Judge a value at this distance from the mean, on the better side."""
        return judge([mean + sign * distance] * k, expectation=target)

    end = pytest.approx(mean - sign * half, rel=1e-10)
    assert ((verdict(0).low, verdict(0).high)) == (end, None) if higher_is_better else (None, end)
    assert [verdict(distance).status for distance in (0.5, 0, -0.999 * half)] == ["as-expected"] * 3
    assert verdict(-1.001 * half).status == "worse"
    assert "the target from the closed division: one-sided 95%" in verdict(0).explanation
    assert Verdict.model_validate_json(verdict(0).model_dump_json()) == verdict(0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_diverged_run_misses_its_target(value: float, higher_is_better: bool) -> None:
    target = expected(*REFERENCE, higher_is_better=higher_is_better, target=True)

    assert judge([value], expectation=target).status == "worse"


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_equal_and_better_values_reach_a_target_without_spread(scale: str) -> None:
    constant = expected(0.7, 0.7, 0.7, scale=scale, target=True)

    assert [judge([value], expectation=constant).status for value in (0.7, 0.8, 0.69)] == [
        "as-expected",
        "as-expected",
        "worse",
    ]
    assert "unexpected" not in judge([0.8], expectation=constant).explanation


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize(("n", "k"), [(2, 1), (3, 3), (10, 1)])
def test_19_in_20_closed_runs_reach_the_target(n: int, k: int, scale: str) -> None:
    """10,000 draws; the interval is left by chance once in a million."""
    draws = np.random.default_rng(5).normal(1.0, 0.1, size=(10_000, n + k))
    if scale == "log":
        draws = np.exp(draws)
    rows = draws.tolist()

    verdicts = [judge(row[n:], expectation=expected(*row[:n], scale=scale, target=True)) for row in rows]

    low, high = stats.binom.interval(1 - 1e-6, 10_000, 0.95)
    assert low <= sum(verdict.status == "as-expected" for verdict in verdicts) <= high
    assert {verdict.confidence for verdict in verdicts} == {0.95}
