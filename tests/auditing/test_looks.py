"""One question has one id: a probe may look at loops in another way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from touchstone.auditing import clock, probe
from touchstone.auditing.clock import Stopwatch
from touchstone.auditing.finding import Finding, passed
from touchstone.auditing.probe import Probe, chosen_probes, in_loops, load_probes
from touchstone.auditing.subject import Subject


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, Probe]:
    """Return a table with one probe that has two looks, and one for loops only."""
    load_probes()
    made: dict[str, Probe] = {}
    monkeypatch.setattr(probe, "PROBES", made)

    @probe.probe("two-looks", group="g", says="Says.", tasks=("token-classification",), loops=False)
    def trainer(_: Subject) -> Finding:
        return passed("a Trainer")

    @in_loops(trainer, tasks=("token-classification", "translation"), budget="fast")
    def loop(_: Subject) -> Finding:
        return passed("a loop")

    @probe.probe("only-loops", group="g", says="Says.", loops=True)
    def only(_: Subject) -> Finding:
        return passed("a loop")

    return made


def subject(*, loop: bool) -> Any:
    return SimpleNamespace(trace=object() if loop else None)


def test_the_look_that_fits_the_subject_is_taken(table: dict[str, Probe]) -> None:
    looks = [table["two-looks"].fitting(subject(loop=loop)) for loop in (False, True)]
    assert [each and each.look(subject(loop=False)).message for each in looks] == ["a Trainer", "a loop"]
    assert [each and each.budget for each in looks] == ["default", "fast"]
    assert {each and (each.id, each.group, each.says) for each in looks} == {("two-looks", "g", "Says.")}


def test_probes_are_chosen_by_the_tasks_of_the_look_that_fits(table: dict[str, Probe]) -> None:
    def ids(task: str, *, loop: bool) -> list[str]:
        return [each.id for each in chosen_probes(task, subject=subject(loop=loop))]

    assert ids("translation", loop=True) == ["two-looks", "only-loops"]
    assert ids("translation", loop=False) == []
    assert ids("token-classification", loop=False) == ["two-looks"]


def test_a_probe_has_at_most_one_look_for_loops(table: dict[str, Probe]) -> None:
    for taken in ("two-looks", "only-loops"):
        with pytest.raises(ValueError, match=f"{taken} has a look for loops already"):
            in_loops(table[taken].look)(lambda _: passed(""))


def test_a_second_look_needs_a_probe(table: dict[str, Probe]) -> None:
    def no_probe(_: Subject) -> Finding:
        return passed("")

    with pytest.raises(ValueError, match="no_probe is no probe"):
        in_loops(no_probe)(no_probe)


def test_no_probe_is_named_after_loops() -> None:
    assert not [each.id for each in load_probes().values() if "loop" in f"{each.id} {each.group}"]


def test_waiting_counts_less_than_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = SimpleNamespace(worked=5.0, passed=100.0)
    monkeypatch.setattr(clock, "time", SimpleNamespace(thread_time=lambda: now.worked, monotonic=lambda: now.passed))
    watch = Stopwatch()
    now.worked, now.passed = 8.0, 106.0
    assert watch.seconds == 3.0
    now.passed = 140.0
    assert watch.seconds == 10.0
