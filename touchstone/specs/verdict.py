"""Verdicts: is a run's metric what it should be? A prediction interval from earlier runs decides.

The reference values are treated as draws from one normal distribution (of the metric, or of its logarithm if the
expectation says so), and a correct run as one more draw from it. With mean m and standard deviation s of n reference
values, the mean of k new ones lies in

    m +- t(n - 1) s sqrt(1/k + 1/n)

with the chosen probability (Hahn and Meeker, *Statistical Intervals*, 1991, sections 4.7 and 4.8; k = 1 is the usual
prediction interval). At 99 %, one verdict in a hundred is wrong about a correct pipeline: this is the false-alarm rate
of one verdict. A suite of v independent verdicts raises a false alarm with probability 1 - 0.99^v. A value above the
interval fails as well: it is too good to come from the same recipe.

A run of the *open* division, which trains another recipe to the same quality, must reach a target and may exceed it.
The target is the worse end of the one-sided 95 % interval, m -+ t(n - 1; 0.95) s sqrt(1/k + 1/n), which 19 in 20 runs
of the closed recipe reach. The end of the 99 % band would be too easy. That band is wide in order to accuse few correct
runs, but here the new recipe has the burden of proof, and with a band it would have to prove least where the fewest
values were measured (with three seeds the band's end is 11.5 standard deviations from the mean, the target 3.4).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from touchstone.fields import FrozenModel, Number, optional_import
from touchstone.specs.expectation import Expectation

CONFIDENCE = 0.99
TARGET_CONFIDENCE = 0.95
"""The share of the closed recipe's runs that reach the target of the open division."""
ROUNDING = 1e-9
"""Values with a smaller relative difference count as equal: far above rounding errors, far below the resolution of any
metric."""
Status = Literal["as-expected", "worse", "better-than-expected", "no-expectation"]


class Verdict(FrozenModel):
    """The judgement of one metric of one run, or of its mean over several seeds.

    Attributes:
        value: the mean of the judged values (the geometric mean on a log scale).
        n: the number of judged values.
        low, high: the band, clipped to the metric's range; None without a band. A target has one of them only.
        confidence: the share of correct runs inside the band, or of the closed recipe's runs that reach the target.
        explanation: one sentence for the reader.
    """

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
    """Judge the values of one metric, one for each seed.

    Without an expectation, with a stale one, or with a single reference value, the status is `no-expectation`. If all n
    reference values are equal, there is no spread: an equal value is as expected, any other value is not. The
    false-alarm rate is then at most k/(n + k), because each of n + k exchangeable draws is equally likely to be the
    odd one; the explanation states it. An expectation with `target` set has one end instead of a band, with confidence
    `TARGET_CONFIDENCE`.

    Args:
        values: (k,) values of runs with different seeds. NaN and infinity are worse than any finite value.
        expectation: the reference values, or None.
        metric: the metric's name, used if there is no expectation.
        confidence: the probability that a correct value lies in the band.

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
        return verdict(
            "no-expectation", "no expectation (none was measured or published): measure one with touchstone calibrate"
        )
    if expectation.stale is not None:
        return verdict(
            "no-expectation", f"no expectation ({expectation.stale}): measure it again with touchstone calibrate"
        )
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
            basis += f", so any other value is unexpected (false alarms: up to {k / (n + k):.0%})"
    else:
        stats = optional_import("scipy.stats")  # not at the top: reading a record does without scipy
        t = float(stats.t.ppf(TARGET_CONFIDENCE if expectation.target else (1 + confidence) / 2, df=n - 1))
        half = t * spread * math.sqrt(1 / k + 1 / n)
        centre = statistics.fmean(reference)
        low, high = scale.backward(centre - half), scale.backward(centre + half)
        judged = "one run" if k == 1 else f"the mean of {k} seeds"
        share = f"one-sided {TARGET_CONFIDENCE:.0%}" if expectation.target else f"{confidence:.0%}"
        basis = f"{share} prediction interval of {judged} from {n} {expectation.kind} values"
        if expectation.one_seed:
            basis += f" (all of seed {expectation.seeds[0]}, so other seeds may spread wider)"
    if expectation.target:
        bound = low if expectation.higher_is_better else high
        return _reached(value, bound, expectation=expectation, n=k, basis=basis)
    shown = (_clip(low, expectation), _clip(high, expectation))
    band = f"[{shown[0]:.6g}, {shown[1]:.6g}]"
    if not math.isfinite(value):
        return verdict("worse", f"{value} is not finite; expected a value in {band}", *shown)
    if low <= value <= high:
        return verdict("as-expected", f"{value:.6g} is in {band}: {basis}", *shown)
    worse = (value < low) == expectation.higher_is_better
    side = "below" if value < low else "above"
    if worse:
        return verdict("worse", f"{value:.6g} is {side} {band}: {basis}", *shown)
    return verdict(
        "better-than-expected", f"{value:.6g} is {side} {band}, too good for the same recipe: {basis}", *shown
    )


def _reached(value: float, bound: float, *, expectation: Expectation, n: int, basis: str) -> Verdict:
    """Judge a run of the open division: the value (of one run, or the mean of n) must be no worse than the bound."""
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
        explanation=f"{value:.6g} {side} {end:.6g}, the target from the closed division: {basis}",
    )


class _Scale(NamedTuple):
    forward: Callable[[float], float]
    backward: Callable[[float], float]

    def mean(self, values: Sequence[float]) -> float:
        """Return the mean on this scale; NaN for infinities of both signs."""
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
    """Clip a bound to the metric's range, for display. Judging uses the bound itself."""
    lower = -math.inf if expectation.lower is None else expectation.lower
    upper = math.inf if expectation.upper is None else expectation.upper
    return min(max(bound, lower), upper)
