"""Is a run's metric what it should be? A prediction interval from earlier runs decides, and too good fails too.

The reference values are taken as draws from one normal distribution (of the metric, or of its logarithm where the
expectation says so), a correct run as one more draw from it. With mean m and standard deviation s of n reference
values, the mean of k new ones lies in

    m +- t(n - 1) s sqrt(1/k + 1/n)

with the probability asked for (Hahn and Meeker, *Statistical Intervals*, 1991, sections 4.7 and 4.8; k = 1 is the usual
prediction interval). At 99 % a correct pipeline is called wrong once in a hundred verdicts: that is the false-alarm
rate of one verdict, and a suite of v independent verdicts raises one with probability 1 - 0.99^v.

A run of the *open* division, which trains otherwise to the same quality, has to reach a target and may pass it: the
worse end of the one-sided 95 % interval, m -+ t(n - 1; 0.95) s sqrt(1/k + 1/n). Runs of the closed recipe reach it 19
times in 20. The 99 % band's end would be too easy: a band is wide so that a correct run is seldom accused, while here
it is the new recipe that has to prove itself, and it would have to prove least where least was measured (of three seeds
the band's end lies 11.5 standard deviations from the mean, the target 3.4).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict
from scipy import stats

from touchstone.fields import Number
from touchstone.specs.expectation import Expectation

CONFIDENCE = 0.99
TARGET_CONFIDENCE = 0.95
"""The share of the closed recipe's runs that reach the target."""
ROUNDING = 1e-9
"""Values closer than this, relatively, are equal: far above what means and logarithms round off, far below any metric's
use.
"""
Status = Literal["as-expected", "worse", "better-than-expected", "no-expectation"]


class Verdict(BaseModel):
    """What one metric says about one run, or about several seeds of it.

    Attributes:
        value: the mean of the judged values (the geometric mean on a log scale).
        n: how many were judged.
        low, high: the band, clipped to what the metric can be; None without one. A target has only the end that counts.
        confidence: the share of correct runs that the band holds, or of the closed recipe's that reach the target.
        explanation: one sentence for a person.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    status: Status
    value: Number
    n: int
    low: Number | None
    high: Number | None
    confidence: float
    explanation: str

    @property
    def failed(self) -> bool:
        return self.status in ("worse", "better-than-expected")


def judge(
    values: Sequence[float], *, expectation: Expectation | None, metric: str = "", confidence: float = CONFIDENCE
) -> Verdict:
    """Judge the values of one metric, one a seed.

    Args:
        values: (k,) of runs with seeds of their own; NaN and infinity are worse than anything expected.
        metric: its name, where there is no expectation to say it.

    Without an expectation, with a stale one, or with a single reference value there is no verdict. Where all n
    reference values are equal there is no spread to measure: an equal value is as expected, any other one is not, and
    the false-alarm rate is then at most k/(n + k) (among n + k exchangeable draws each is as likely as another to be
    the odd one), which the sentence states. An expectation that is a `target` has one end instead of a band, of
    confidence `TARGET_CONFIDENCE`.

    Raises:
        ValueError: no values; a confidence outside (0, 1).
    """
    if not values:
        raise ValueError("no values to judge")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    name = expectation.metric if expectation else metric
    scale = _LOG if expectation and expectation.scale == "log" else _LINEAR
    value = scale.mean(values)

    def verdict(status: Status, explanation: str, low: float | None = None, high: float | None = None) -> Verdict:
        return Verdict(
            metric=name,
            status=status,
            value=value,
            n=len(values),
            low=low,
            high=high,
            confidence=confidence,
            explanation=explanation,
        )

    if expectation is None:
        return verdict("no-expectation", "no expectation (none was measured or published): calibrate to measure one")
    if expectation.stale is not None:
        return verdict("no-expectation", f"no expectation ({expectation.stale}): calibrate to measure one")
    if (n := len(expectation.values)) < 2:
        return verdict(
            "no-expectation", "no expectation (a single reference value has no spread): calibrate with more seeds"
        )

    reference = [scale.forward(x) for x in expectation.values]
    k = len(values)
    spread = statistics.stdev(reference)
    if spread <= ROUNDING * max(map(abs, reference)):
        low = high = expectation.values[0]
        value = low if math.isclose(value, low, rel_tol=ROUNDING) else value
        basis = f"all {n} reference values are {low:.6g}"
        if not expectation.target:
            basis += f", so any other is unexpected (false alarms: up to {k / (n + k):.0%})"
    else:
        t = float(stats.t.ppf(TARGET_CONFIDENCE if expectation.target else (1 + confidence) / 2, df=n - 1))
        half = t * spread * math.sqrt(1 / k + 1 / n)
        centre = statistics.fmean(reference)
        low, high = scale.backward(centre - half), scale.backward(centre + half)
        of_what = "one run" if k == 1 else f"the mean of {k} seeds"
        share = f"one-sided {TARGET_CONFIDENCE:.0%}" if expectation.target else f"{confidence:.0%}"
        basis = f"{share} prediction interval of {of_what} from {n} {expectation.kind} values"
        if expectation.one_seed:
            basis += f", all of seed {expectation.seeds[0]}, so that seeds alone may spread wider"
    if expectation.target:
        bound = low if expectation.higher_is_better else high
        return _reached(value, bound, expectation=expectation, n=k, basis=basis)
    shown = (_clip(low, expectation), _clip(high, expectation))
    band = f"[{shown[0]:.6g}, {shown[1]:.6g}]"
    if not math.isfinite(value):
        return verdict("worse", f"{value} is not a number that training should end with; expected {band}", *shown)
    if low <= value <= high:
        return verdict("as-expected", f"{value:.6g} is in {band}: {basis}", *shown)
    worse = (value < low) == expectation.higher_is_better
    side = "below" if value < low else "above"
    if worse:
        return verdict("worse", f"{value:.6g} is {side} {band}: {basis}", *shown)
    return verdict("better-than-expected", f"{value:.6g} is {side} {band}, too good to be the same: {basis}", *shown)


def _reached(value: float, bound: float, *, expectation: Expectation, n: int, basis: str) -> Verdict:
    """Of the open division: whether the value (of one run, or the mean of n) is no worse than the bound."""
    higher = expectation.higher_is_better
    reached = math.isfinite(value) and (value >= bound if higher else value <= bound)
    end = _clip(bound, expectation)
    side = ("reaches" if reached else "is below") if higher else ("is within" if reached else "is above")
    return Verdict(
        metric=expectation.metric,
        status="as-expected" if reached else "worse",
        value=value,
        n=n,
        low=end if higher else None,
        high=None if higher else end,
        confidence=TARGET_CONFIDENCE,
        explanation=f"{value:.6g} {side} {end:.6g}, the worse end of what the closed division reaches: {basis}",
    )


class _Scale(NamedTuple):
    forward: Callable[[float], float]
    backward: Callable[[float], float]

    def mean(self, values: Sequence[float]) -> float:
        """NaN where infinities of both signs meet."""
        try:
            return self.backward(statistics.fmean(self.forward(value) for value in values))
        except ValueError:
            return math.nan


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan if math.isnan(value) else -math.inf


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


_LINEAR = _Scale(float, float)
_LOG = _Scale(_log, _exp)


def _clip(bound: float, expectation: Expectation) -> float:
    """For display: a band that reaches beyond what the metric can be would puzzle. What is judged is not clipped."""
    lower = -math.inf if expectation.lower is None else expectation.lower
    upper = math.inf if expectation.upper is None else expectation.upper
    return min(max(bound, lower), upper)
