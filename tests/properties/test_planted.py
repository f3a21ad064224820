"""The checks catch all planted bugs, pass correct implementations, and each catches at least one bug."""

from __future__ import annotations

import pytest

from tests.planted import BUGS, Bug
from tests.planted.killing import FIRST_LOOK, THOROUGH, fails, misses
from tests.planted.table import PAGE, page
from touchstone.properties.check import Check, NotOffered, all_checks, ids, run_check

SEEDS = range(20)

EXAMPLES_TO_PASS = 12
"""Number of examples on each of 20 seeds: 240 examples of every check, nearly as many as the profile `ci` has."""

CORRECT = ("touchstone.stages", "tests.independent")


@pytest.mark.parametrize("bug", BUGS, ids=repr)
def test_a_planted_bug_is_caught_by_each_check_it_names(bug: Bug) -> None:
    missed = {id: seeds for id in bug.caught_by if (seeds := misses(id, bug, seeds=SEEDS))}

    assert missed == {}


@pytest.mark.parametrize("implementation", CORRECT)
@pytest.mark.parametrize("check", all_checks(), ids=lambda check: f"{check.id}-{check.name.removeprefix('test_')}")
def test_a_correct_implementation_passes_every_check(check: Check, implementation: str) -> None:
    for seed in SEEDS:
        try:
            run_check(check, implementation, seed=seed, max_examples=EXAMPLES_TO_PASS)
        except NotOffered:
            assert implementation == "tests.independent"
            assert any(stage.endswith("_batch") for stage in check.needs)
            return


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: f"{check.id}-{check.name.removeprefix('test_')}")
def test_every_check_catches_a_bug(check: Check) -> None:
    candidates = [bug for bug in BUGS if bug.stage in check.needs]
    candidates.sort(key=lambda bug: check.id not in bug.caught_by)  # the most likely ones first

    looks = [(bug, examples) for examples in (FIRST_LOOK, THOROUGH) for bug in candidates]

    caught = any(fails(check, bug, seed=0, max_examples=examples) for bug, examples in looks)

    assert caught, f"{check.id} passes on all {len(candidates)} bugs of {check.needs}"


def test_every_check_of_the_contract_is_named_by_a_bug() -> None:
    assert {id for bug in BUGS for id in bug.caught_by} == set(ids())


def test_the_page_of_planted_bugs_is_current() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "write it again: python -m tests.planted --page-only"
