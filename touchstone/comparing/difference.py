"""Decide whether one sample of figures is worse than another, by significance and by the size of the effect.

* Two samples of n >= 2 seeds each are compared by a two-sided Welch's t-test (Welch 1947). Times, memory and energy are
  compared by their logarithms, so that the test is about their ratio; metrics are compared directly. With one seed on
  a side the spread is unknown, so there is no verdict.
* A difference counts if p < 0.01 *and* it is large enough to matter: for costs, more than 5% and more than the spread
  of single runs (one pooled standard deviation); for metrics, more than one pooled standard deviation of the seeds,
  because another seed changes a metric by as much.
* Each verdict is a false alarm in at most 1 of 100 cases, so expect some among many verdicts.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

ALPHA = 0.01
MIN_COST_CHANGE = 0.05
"""Times of the same code on the same machine drift by this much (observ#181: 25 of 56 benchmarks drift by more)."""
EQUAL = 1e-9
"""Relative difference below which two values count as equal."""

Outcome = Literal["better", "worse", "same", "no verdict"]


@dataclass(frozen=True)
class Sample:
    """The figures of one side, one per seed; empty if the figure was not measured."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Sample:
        """Build a sample. It is empty if any value is None, because a mean over some of the seeds is not comparable."""
        found = tuple(values)
        return cls(() if None in found else tuple(value for value in found if value is not None))

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        try:
            return statistics.fmean(self.values) if self.values else math.nan
        except ValueError:  # infinities of both signs
            return math.nan

    @property
    def sd(self) -> float | None:
        """The standard deviation; None for fewer than two values, or if a value is not finite."""
        return statistics.stdev(self.values) if self.n > 1 and all(map(math.isfinite, self.values)) else None


@dataclass(frozen=True)
class Difference:
    """The difference of B from A.

    Attributes:
        ratio: B / A of the means, or None if it is undefined.
        p: p-value of the test, or None if nothing was tested.
    """

    outcome: Outcome
    reason: str
    ratio: float | None
    p: float | None


def cost_difference(a: Sample, b: Sample) -> Difference:
    """Compare positive figures for which less is better: seconds, bytes, joules."""
    ratio = b.mean / a.mean if a.values and b.values and a.mean > 0 else None
    if ratio is None or min(*a.values, *b.values) <= 0:
        return Difference("no verdict", "not measured on both sides", ratio, None)
    if (few := _too_few(a, b)) is not None:
        return Difference("no verdict", few, ratio, None)
    logs_a, logs_b = ([math.log(value) for value in sample.values] for sample in (a, b))
    p, spread = _welch(logs_a, logs_b)
    if p is None:
        return _without_spread(a, b, ratio)
    change = math.exp(abs(statistics.fmean(logs_b) - statistics.fmean(logs_a))) - 1
    least = max(MIN_COST_CHANGE, math.exp(spread) - 1)
    return _decide(p, change > least, worse=ratio > 1, ratio=ratio, least=f"{least:.0%}")


def quality_difference(a: Sample, b: Sample, *, higher_is_better: bool) -> Difference:
    """Compare a metric. If only one side has values that are not finite, that side is worse."""
    ratio = b.mean / a.mean if a.values and b.values and a.mean not in (0, math.inf) else None
    finite_a, finite_b = (all(map(math.isfinite, sample.values)) for sample in (a, b))
    if a.values and b.values and finite_a != finite_b:
        return Difference("worse" if finite_a else "better", f"{'B' if finite_a else 'A'} is not finite", None, None)
    if not (finite_a and finite_b):
        return Difference("no verdict", "not finite on either side", None, None)
    if (few := _too_few(a, b)) is not None:
        return Difference("no verdict", few, ratio, None)
    p, spread = _welch(a.values, b.values)
    if p is None:
        return _without_spread(a, b, ratio)
    worse = (b.mean < a.mean) == higher_is_better
    return _decide(p, abs(b.mean - a.mean) > spread, worse=worse, ratio=ratio, least=f"{spread:.2g}")


def _without_spread(a: Sample, b: Sample, ratio: float | None) -> Difference:
    if math.isclose(a.mean, b.mean, rel_tol=EQUAL):
        return Difference("same", "equal in all runs", ratio, None)
    return Difference("no verdict", "no spread, so no test is possible", ratio, None)


def _decide(p: float, large: bool, *, worse: bool, ratio: float | None, least: str) -> Difference:
    chance = f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"
    if p >= ALPHA:
        return Difference("same", f"{chance}: not significant", ratio, p)
    if not large:
        return Difference("same", f"{chance}, but the change is below {least}", ratio, p)
    return Difference("worse" if worse else "better", f"{chance}, and the change is above {least}", ratio, p)


def _too_few(a: Sample, b: Sample) -> str | None:
    if not a.n or not b.n:
        return "not measured on both sides"
    return "one seed: no verdict" if min(a.n, b.n) == 1 else None


def _welch(a: Sequence[float], b: Sequence[float]) -> tuple[float | None, float]:
    """Return p and the pooled standard deviation; p is None if neither side has a spread beyond rounding."""
    spread = math.sqrt(
        ((len(a) - 1) * statistics.variance(a) + (len(b) - 1) * statistics.variance(b)) / (len(a) + len(b) - 2)
    )
    if spread <= EQUAL * max(abs(value) for value in (*a, *b)):
        return None, spread
    from scipy import stats  # part of touchstone[suite]; slow to import

    with warnings.catch_warnings():
        # SciPy warns if one side has no spread. The other side has, which is enough for the test.
        warnings.filterwarnings("ignore", message="Precision loss occurred", category=RuntimeWarning)
        return float(stats.ttest_ind(a, b, equal_var=False).pvalue), spread
