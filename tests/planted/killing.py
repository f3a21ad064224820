"""Run checks on planted bugs."""

from __future__ import annotations

from collections.abc import Iterable

from tests.planted.bug import Bug
from touchstone.properties.check import Check, NotOffered, checks_of, run_check
from touchstone.properties.failure import CheckFailed
from touchstone.properties.plugin import EXAMPLES

FIRST_LOOK = 30
"""Number of examples of the first attempt, which catches most bugs."""

THOROUGH = EXAMPLES["ci"]
"""Number of examples of the second attempt, as in the profile `ci`."""


def fails(check: Check, implementation: object, *, seed: int, max_examples: int) -> bool:
    """Return True if the check fails on the implementation. A check whose stage is not offered does not fail."""
    if isinstance(implementation, Bug):
        implementation = repr(implementation)  # by name, because another process may have to import it
    try:
        run_check(check, implementation, seed=seed, max_examples=max_examples)
    except CheckFailed:
        return True
    except NotOffered:
        return False
    return False


def killer(checks: Iterable[Check], bug: Bug, *, seed: int) -> Check | None:
    """Return the first of the checks that catches a bug."""
    checks = list(checks)
    for max_examples in (FIRST_LOOK, THOROUGH):
        for check in checks:
            if fails(check, bug, seed=seed, max_examples=max_examples):
                return check
    return None


def misses(id: str, bug: Bug, *, seeds: Iterable[int]) -> list[int]:
    """Return the seeds on which no test of a check catches a bug."""
    checks = list(checks_of(id))
    missed = []
    for seed in seeds:
        found = killer(checks, bug, seed=seed)
        if found is None:
            missed.append(seed)
        else:  # try the test that caught it first from now on
            checks.remove(found)
            checks.insert(0, found)
    return missed
