"""`touchstone times`: how records are grouped into setups, and which setups have a time to the expected metric."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.samples import (
    SPEC,
    hardware,
    launch,
    open_spec,
    record,
    sample_spec,
    software,
    training_run,
    write_spec,
)
from touchstone.comparing.times import Setup, TaskTimes, render_times, times_to_metric
from touchstone.records.record import Record
from touchstone.specs.spec import Spec, load_spec
from touchstone.specs.verdict import Verdict

ROOT = Path(__file__).parents[2]
OTHER = {"id": "fedcba9876543210", "name": "epyc-8c-64g"}
TIME = (20.0, 20.2)


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return sample_spec(tmp_path)


def ended(status: Any) -> tuple[Verdict, ...]:
    return (Verdict(metric="f1", status=status, value=0.9, n=1, low=0.8, high=None, confidence=0.75, explanation="so"),)


def runs(spec: Spec, *, seconds: Sequence[float] = TIME, machine: dict[str, Any] | None = None, **changes: Any) -> Any:
    """Records of seeds 0, 1, ..., which all reached the expected metric."""
    return [
        record(
            spec,
            seed=seed,
            run=training_run(f1=0.9 + seed / 100, seconds=time),
            hardware=hardware(**(machine or {})),
            **{"verdicts": ended("as-expected")} | changes,
        )
        for seed, time in enumerate(seconds)
    ]


def only(records: Sequence[Record]) -> TaskTimes:
    (found,) = times_to_metric(records)
    return found


def found_in(task: TaskTimes) -> dict[str, float | None]:
    return {setup.title: task.ratio(setup) for setup in task.setups}


def text(times: Sequence[TaskTimes], *, width: int = 160, markdown: bool = False) -> str:
    out = io.StringIO()
    render_times(times, Console(file=out, width=width), markdown=markdown)
    return out.getvalue()


def test_engines_precisions_and_divisions_are_setups_of_one_task(spec: Spec, tmp_path: Path) -> None:
    task = only(
        [
            *runs(open_spec(tmp_path), engine="packed", precision="bf16", seconds=(4.0,)),
            *runs(spec, engine="packed", precision="bf16", seconds=(5.0, 5.05)),
            *runs(spec, engine="packed", seconds=(10.0, 10.1)),
            *runs(spec, engine="loop", seconds=(25.0, 25.25)),
            *runs(spec, engine="trainer", precision="bf16", seconds=(40.0, 40.4)),
            *runs(spec, engine="trainer", seconds=TIME),
        ]
    )

    assert (task.title, task.machine) == ("ner · embedded", "xeon-2c-24g-012345")
    assert list(found_in(task).items()) == [
        ("trainer · fp32", 1.0),
        ("trainer · bf16", pytest.approx(0.5)),
        ("loop · fp32", pytest.approx(0.8)),
        ("packed · fp32", pytest.approx(2.0)),
        ("packed · bf16", pytest.approx(4.0)),
        ("packed · bf16 · +fast (open division)", pytest.approx(20.1 / 4)),
    ]


def test_the_slowest_setup_is_first_without_trainer(spec: Spec) -> None:
    found = found_in(only([*runs(spec, engine="packed", seconds=(5.0,)), *runs(spec, engine="loop", seconds=(10.0,))]))
    assert list(found.items()) == [("loop · fp32", 1.0), ("packed · fp32", 2.0)]


def test_a_single_setup_has_no_ratio(spec: Spec) -> None:
    assert found_in(only(runs(spec))) == {"loop · fp32": None}


def test_another_number_of_processes_is_another_setup(spec: Spec) -> None:
    found = found_in(only([*runs(spec), *runs(spec, launch=launch(2), seconds=(12.0, 12.2))]))
    assert list(found) == ["loop · fp32", "loop · fp32 · 2 processes"]


@pytest.mark.parametrize("changes", [{"machine": OTHER}, {"dataset_fingerprint": "x"}], ids=lambda c: next(iter(c)))
def test_setups_of_other_machines_or_data_are_not_grouped(spec: Spec, changes: dict[str, Any]) -> None:
    times = times_to_metric([*runs(spec), *runs(spec, engine="packed", **changes)])
    assert [len(task.setups) for task in times] == [1, 1]


def test_setups_of_other_tasks_are_not_grouped(spec: Spec, tmp_path: Path) -> None:
    changed = load_spec(write_spec(tmp_path, text=SPEC.replace("hidden = 8", "hidden = 10")), profile="embedded")
    variant = load_spec(write_spec(tmp_path), profile="embedded", variant="first")
    for other in (changed, variant):
        assert [len(task.setups) for task in times_to_metric([*runs(spec), *runs(other, engine="packed")])] == [1, 1]


def test_only_the_newest_recipe_and_the_newest_run_of_a_seed_count(spec: Spec, tmp_path: Path) -> None:
    before = load_spec(write_spec(tmp_path, text=SPEC.replace("epochs = 1", "epochs = 2")), profile="embedded")
    early, late = (datetime(2026, 1, day, tzinfo=timezone.utc) for day in (1, 2))
    old = [r.model_copy(update={"started": early, "finished": early}) for r in runs(spec, seconds=(99.0, 20.4))]
    new = [r.model_copy(update={"started": late, "finished": late}) for r in runs(spec, seconds=(20.0,))]
    other = [r.model_copy(update={"started": early, "finished": early}) for r in runs(before, engine="packed")]
    (setup,) = only([*new, *old, *other]).setups

    assert setup.seconds.values == (20.0, 20.4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"verdicts": ended("worse")}, "seeds 0, 1 did not reach the expected metric"),
        ({"verdicts": ended("better-than-expected")}, "seeds 0, 1 did not reach the expected metric"),
        ({"verdicts": ended("no-expectation")}, "no expectation"),
        ({"verdicts": ()}, "no expectation"),
        ({"software": software(environment={"PYTEST_XDIST_WORKER_COUNT": "2"})}, "other runs shared the machine"),
    ],
)
def test_a_setup_that_missed_its_metric_has_a_reason_instead_of_a_ratio(
    spec: Spec, changes: dict[str, Any], reason: str
) -> None:
    for sides in (
        [*runs(spec), *runs(spec, engine="packed", **changes)],
        [*runs(spec, **changes), *runs(spec, engine="packed")],
    ):
        task = only(sides)
        (found,) = filter(None, [setup.reason for setup in task.setups])
        assert reason in found
        assert None in found_in(task).values()
        assert reason in text([task])


def test_the_reason_names_the_seed_that_missed_its_metric(spec: Spec) -> None:
    good, bad = runs(spec), runs(spec, verdicts=ended("worse"))
    (setup,) = only([good[0], bad[1]]).setups
    assert setup.reason == "seed 1 did not reach the expected metric"


def test_figures_that_some_seeds_lack_are_not_shown(spec: Spec) -> None:
    bare = [r.model_copy(update={"efficiency": r.efficiency.model_copy(update={"floor": None})}) for r in runs(spec)]
    half = [bare[0].model_copy(update={"phase_seconds": {}}), bare[1]]
    (setup,) = only(bare).setups
    assert (setup.seconds.n, setup.floor.n) == (2, 0)
    (setup,) = only([half[0], runs(spec)[1]]).setups
    assert (setup.seconds.n, setup.floor.n) == (0, 0), "a mean over some of the seeds"
    assert found_in(only([*half, *runs(spec, engine="packed")])) == {"loop · fp32": None, "packed · fp32": 1.0}


def test_metrics_are_the_asserted_ones_or_the_main_one(spec: Spec) -> None:
    def names(setup: Setup) -> list[str]:
        return list(setup.metrics)

    judged, unjudged = only(runs(spec)), only(runs(spec, verdicts=()))
    assert [["f1"], [unjudged.setups[0].records[0].quality[0].name]] == [names(t.setups[0]) for t in (judged, unjudged)]


def test_the_table_fits_a_terminal_and_shows_everything(spec: Spec) -> None:
    times = times_to_metric([*runs(spec, engine="trainer"), *runs(spec, engine="packed", machine=OTHER)])
    shown = text(times)
    for part in ("xeon-2c-24g-012345", "epyc-8c-64g-fedcba", "trainer · fp32", "packed · fp32", "f1 0.90", "20.10"):
        assert part in shown
    assert max(map(len, text(times, width=80).splitlines())) <= 80


def test_markdown_has_one_row_per_line(spec: Spec) -> None:
    times = times_to_metric([*runs(spec, engine="trainer"), *runs(spec, engine="packed", seconds=(5.0,))])
    lines = [line for line in text(times, markdown=True).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {8}
    assert "|-" in lines[1]
