"""The record of audits: what it computes, and the lines that a session shows."""

from __future__ import annotations

from touchstone.records.timing import AuditTime, WatchTime
from touchstone.suite.throughput.table import audit_lines

AUDIT = AuditTime(budget="fast", probes=19, seconds=(2.0, 3.0, 12.0), step_seconds=(0.5, 0.5, 9.0), most=2.5)
WATCH = WatchTime(steps=300, seconds=(1.1, 1.0), plain_seconds=(1.0, 1.0), most=1.05)


def test_an_audit_is_measured_in_training_steps_and_reaches_its_goal_in_any_round() -> None:
    assert AUDIT.steps == 6.0
    assert AUDIT.reached
    assert not AUDIT.model_copy(update={"most": 1.9}).reached


def test_watch_is_compared_round_by_round() -> None:
    assert WATCH.ratios == [1.1, 1.0]
    assert WATCH.reached
    assert not WATCH.model_copy(update={"most": 0.99}).reached


def test_lines_name_budget_probes_steps_and_goal() -> None:
    missed = AUDIT.model_copy(update={"most": 1.9})

    assert audit_lines([AUDIT, missed], WATCH) == [
        "audit, budget fast: 3.0 s for 19 probes, as long as 6.0 training steps; goal 2.5 s reached",
        "audit, budget fast: 3.0 s for 19 probes, as long as 6.0 training steps; goal 1.9 s missed",
        "watch: 1.050 times as long as 300 steps without it (1.000-1.100); goal 1.05 reached",
    ]
