"""Which checks catch which planted bugs."""

from __future__ import annotations

from collections.abc import Iterable

from tests.planted.bug import Bug
from touchstone.properties.check import Check, NotOffered, checks_of, run_check
from touchstone.properties.failure import CheckFailed
from touchstone.properties.profiles import EXAMPLES

FIRST_LOOK = 30
"""Examples of the first attempt. Most bugs fall in it, by one of the several tests that a row may have."""

THOROUGH = EXAMPLES["ci"]
"""Examples of the second attempt, those of the profile that a change has to pass."""


def fails(check: Check, implementation: object, *, seed: int, max_examples: int) -> bool:
    """Whether a check does not hold. One that cannot be run, as a stage is not offered, does not fail."""
    if isinstance(implementation, Bug):
        implementation = repr(implementation)  # by its name, as another process has to find it
    try:
        run_check(check, implementation, seed=seed, max_examples=max_examples)
    except CheckFailed:
        return True
    except NotOffered:
        return False
    return False


def killer(checks: Iterable[Check], bug: Bug, *, seed: int) -> Check | None:
    """The first of the checks that catches a bug."""
    checks = list(checks)
    for max_examples in (FIRST_LOOK, THOROUGH):
        for check in checks:
            if fails(check, bug, seed=seed, max_examples=max_examples):
                return check
    return None


def misses(id: str, bug: Bug, *, seeds: Iterable[int]) -> list[int]:
    """The seeds on which no test of a row of docs/contract.md catches a bug."""
    checks = list(checks_of(id))
    missed = []
    for seed in seeds:
        found = killer(checks, bug, seed=seed)
        if found is None:
            missed.append(seed)
        else:  # what caught it once is tried first from now on
            checks.remove(found)
            checks.insert(0, found)
    return missed
