"""Two-sided binomial bounds for counts of independent draws."""

from __future__ import annotations

from touchstone.properties.failure import Mismatch

ALPHA = 1e-14
"""Probability that one bounded count of a right implementation falls outside.

A check makes at most 100,000 such comparisons (M7 under the `deep` profile makes 200 examples of 50 ids, the others
far fewer), so that it raises a false alarm with probability below 1e-9. The draws are functions of their seeds: a
check that has passed on an implementation passes on it for ever.
"""


def expect_share(count: int, *, n: int, probability: float, of: str) -> None:
    """`count` of `n` independent draws with `probability` each lies within its exact bounds."""
    __tracebackhide__ = True
    from scipy.stats import binom  # takes most of a second to import: only those who count pay

    tail = min(binom.cdf(count, n, probability), binom.sf(count - 1, n, probability))
    if tail < ALPHA / 2:
        low, high = (int(binom.ppf(q, n, probability)) for q in (ALPHA / 2, 1 - ALPHA / 2))
        raise Mismatch(
            expected=f"{low} to {high} of {n} {of} (independent draws with probability {probability:g})",
            came=f"{count} ({count / n:.4f})" if n else f"{count}",
        )
