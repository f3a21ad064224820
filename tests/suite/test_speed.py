"""The record of the engines' steps: what it computes and refuses. The committed ones can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from touchstone.engines.work import ExampleCounter
from touchstone.interface.display import as_text
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import FeatureRows
from touchstone.records.record import RecordError
from touchstone.records.timing import Speed, Steps, TaskSpeed
from touchstone.sources import Access, open_source
from touchstone.specs.spec import load_spec
from touchstone.suite.throughput import evaluation
from touchstone.suite.throughput.table import speed_table

ROOT = Path(__file__).parents[2]
COMMITTED = sorted((ROOT / "results").glob("*/speed.*.json"))


def steps(*rounds: tuple[float, ...], engine: str = "trainer", floor: float | None = None) -> Steps:
    return Steps(engine=engine, precision="fp32", rounds=rounds, samples=16.0, tokens=320.0, floor_seconds=floor)


def task(*engines: Steps) -> TaskSpeed:
    return TaskSpeed(task="masked-lm", spec_hash="0" * 64, steps_in_all=75, engines=engines)


def test_ratio_compares_medians_and_spread_compares_rounds() -> None:
    fast = steps((1.0, 1.0, 9.0), (2.0, 2.0, 2.0), engine="packed")
    found = task(steps((4.0, 4.0, 4.0), (4.0, 4.0, 4.0)), fast)

    assert fast.seconds == 2.0
    assert fast.ratio(found.engines[0]) == 2.0
    assert fast.spread(found.engines[0]) == (2.0, 4.0)


def test_fraction_of_floor_is_relative_to_the_median_step() -> None:
    assert steps((2.0, 2.0, 6.0), floor=0.5).fraction_of_floor == 0.25
    assert steps((2.0,)).fraction_of_floor is None


def test_task_speed_refuses_engines_with_different_numbers_of_rounds() -> None:
    with pytest.raises(ValidationError, match="not timed in turn"):
        task(steps((1.0,)), steps((1.0,), (1.0,), engine="packed"))


@pytest.mark.parametrize("task", ["token-classification", "causal-lm", "translation"])
def test_evaluate_reads_the_same_examples_for_every_engine(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BATCHES", 1)
    found = {}
    for way in evaluation.EVALUATION_WAYS:
        engine, precision = way.split(":")
        payload = {"spec": task, "profile": "embedded", "mirror": None, "engine": engine, "precision": precision}
        counted = way == evaluation.EVALUATION_WAYS[0]
        found[way] = evaluation.evaluate(payload | {"count": counted}, lambda message: None)

    assert all(seconds > 0 for result in found.values() for seconds in result["seconds"])
    (size,) = {result["samples"] for result in found.values()}
    assert load_spec(task, profile="embedded").eval_batch_size == size
    assert len({result["tokens"] for result in found.values()}) == 1
    first, *others = found.values()
    if task == "translation":  # the length of a generated text is not known in advance
        assert first["floor"] is None
    else:
        assert 0 < first["floor"] < first["seconds"][0]
    assert [None] * len(others) == [result["floor"] for result in others], "flops were counted without a request"


@pytest.mark.parametrize("task", ["token-classification", "masked-lm", "causal-lm"])
def test_the_floor_of_an_evaluation_counts_its_examples_and_labels(task: str) -> None:
    """Eight more examples take a third of the flops of training on them with the same number of labels."""
    spec = load_spec(task, profile="embedded")
    source = open_source(spec.data, spec.checkpoint, access=Access(mirror=None, dataset=None, checkpoint=None))
    pipeline = PIPELINES[task](source, options=spec.options, seed=1)
    model = pipeline.model()
    first, both = (evaluation.FirstOfValidation(pipeline, rows=rows) for rows in (8, 16))
    rows = FeatureRows(both.columns("validation"))
    added = pipeline.collate([rows[0, index] for index in range(8, 16)], train=False)["size"].items
    second = ExampleCounter(pipeline, model).total(rows, times=np.repeat([0, 1], 8), items=added)
    found = [evaluation.forward_flops(part, model) for part in (first, both)]

    assert added > 0
    assert found[0] is not None
    assert found[0] + second / 3 == pytest.approx(found[1], rel=1e-9)  # float64 sums


def test_the_table_shows_training_and_then_evaluation() -> None:
    first, second = steps((4.0,)), steps((2.0,), engine="packed")
    raced = task(first, second).model_copy(update={"evaluation": (steps((9.0,), engine="course"), steps((3.0,)))})

    rows = [line.split() for line in as_text(speed_table([raced]), width=140, colour=False).splitlines()]

    ratios = {row[0]: row[-2:] for row in rows if row and row[0] in ("masked-lm", "packed", "evaluation", "trainer")}
    assert ratios["packed"] == ["2.00", "(2.00-2.00)"]
    assert ratios["trainer"] == ["3.00", "(3.00-3.00)"]
    assert list(ratios) == ["masked-lm", "packed", "evaluation", "trainer"], "training first"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_committed_records_of_speed_can_be_read(path: Path) -> None:
    record = Speed.read(path)

    assert path.name == record.file_name
    assert path.parent.name == record.hardware.folder
    assert {each.engines[0].engine for each in record.tasks} == {"trainer"}


@pytest.mark.parametrize(
    ("change", "says"),
    [(lambda text: text[:-20], "speed"), (lambda text: text.replace('"profile"', '"prof"'), "prof")],
    ids=["cut short", "unknown key"],
)
def test_speed_read_refuses_a_wrong_file_by_name(tmp_path: Path, change: Any, says: str) -> None:
    path = tmp_path / "speed.small.json"
    path.write_text(change(COMMITTED[0].read_text(encoding="utf-8")), encoding="utf-8")

    with pytest.raises(RecordError, match=says):
        Speed.read(path)
