"""Check what must not change a result: a second run, an interruption, the cut into batches, the loading processes.

Small runs on the microworld with the engines, device and tasks of the command line. `--engine package.module:attribute`
checks your own engine.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import set_seed

from touchstone.engines import engine_names, load_engine
from touchstone.engines.evaluation import predict_share, score_shares
from touchstone.engines.order import evaluation_batches
from touchstone.engines.training import Execution, Recipe, TrainingRun
from touchstone.interface.config import CONFIG
from touchstone.interface.options import OptionError, split_task
from touchstone.interface.plan import choose_engines
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import Pipeline, Score
from touchstone.stages.ragged import IGNORED
from touchstone.suite.reproducibility.comparing import (
    assert_close_losses,
    assert_resumes,
    assert_same_bits,
    assert_same_update,
)
from touchstone.suite.reproducibility.tiny import RecordedOrder, tiny_pipeline

MORE_WORKERS_THAN_CORES = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
"""On one core torch advises against two workers: they are slow, but the result must not change."""
RECIPE = Recipe(epochs=2, batch_size=4, accumulation=2, learning_rate=2e-3, warmup_steps=2, weight_decay=0.01)
# With such a large epsilon, Adam is nearly plain gradient descent, and nothing is clipped. A gradient that is too large
# by a factor then moves the weights too far by that factor. Adam and clipping would hide it.
SCALE_SENSITIVE: dict[str, Any] = {"epsilon": 1.0, "max_grad_norm": 1e6, "learning_rate": 0.1, "schedule": "constant"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    session = metafunc.config.stash[CONFIG]
    tasks = {split_task(task)[0] for task in session.tasks} or set(PIPELINES)
    if "task" in metafunc.fixturenames:
        metafunc.parametrize("task", [task for task in PIPELINES if task in tasks])
    engines: list[str] = []
    try:
        engines = choose_engines(session.engines or engine_names())
    except OptionError as error:
        session.problem = str(error)
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", engines)
    if "engines" in metafunc.fixturenames:  # those named are compared with the loop
        metafunc.parametrize("engines", [tuple(dict.fromkeys(["loop", *engines]))], ids=["all"])


@pytest.fixture
def device(pytestconfig: pytest.Config) -> str:
    return pytestconfig.stash[CONFIG].device


def run(
    engine: str, pipeline: Pipeline, *, device: str, recipe: Recipe = RECIPE, report: Any = None, **how: Any
) -> TrainingRun:
    return load_engine(engine).train(
        pipeline, recipe=recipe, execution=Execution(device=device, **{"seed": 7, **how}), report=report
    )


def test_the_same_seed_gives_the_same_bits(task: str, engine: str, device: str) -> None:
    first, second = (run(engine, tiny_pipeline(task), device=device) for _ in range(2))

    assert_same_bits(first, second, what="a second run with the same seed")


def test_another_seed_gives_another_run(task: str, engine: str, device: str) -> None:
    first, second = (run(engine, tiny_pipeline(task), device=device, seed=seed) for seed in (7, 8))

    assert [point.loss for point in first.trajectory] != [point.loss for point in second.trajectory]


def test_a_resumed_run_equals_the_uninterrupted_one(task: str, engine: str, device: str, tmp_path: Path) -> None:
    assert_resumes(lambda **how: run(engine, tiny_pipeline(task), device=device, **how), save_dir=tmp_path)


def test_an_update_does_not_depend_on_how_its_batch_is_cut(task: str, engine: str, device: str) -> None:
    cuts = [(8, 1), (4, 2), (1, 8)]
    runs = []
    for batch_size, accumulation in cuts:
        recipe = RECIPE.model_copy(
            update={"batch_size": batch_size, "accumulation": accumulation, "epochs": 1.0, **SCALE_SENSITIVE}
        )
        runs.append(run(engine, tiny_pipeline(task, dropout=0.0), device=device, recipe=recipe))

    # Relative to the norm of the weights, rounding gives 4e-9 here, means of micro-batch means at least 6e-5, and their
    # sum at least 1e-4.
    names = [f"{accumulation} micro-batches of {batch_size}" for batch_size, accumulation in cuts]
    assert_same_update(runs, within=1e-6, what=names)
    for other in runs[1:]:
        assert_close_losses(runs[0], other, within=1e-4, what="the same batches, cut otherwise")


def test_engines_give_the_same_losses(task: str, engines: tuple[str, ...], device: str) -> None:
    recipe = RECIPE.model_copy(update={"batch_size": 1, "epochs": 2.0})
    first, *others = (run(engine, tiny_pipeline(task, dropout=0.0), device=device, recipe=recipe) for engine in engines)

    assert len(first.trajectory) >= 20
    for name, other in zip(engines[1:], others, strict=True):
        assert_close_losses(first, other, within=1e-5, what=f"{engines[0]} and {name}, without dropout")


def test_engines_take_the_same_examples_in_the_same_order(task: str, engines: tuple[str, ...], device: str) -> None:
    orders = {}
    for engine in engines:
        pipeline = tiny_pipeline(task)
        recorded = RecordedOrder(pipeline)
        run(engine, pipeline, device=device)
        orders[engine] = recorded.seen
    first = orders[engines[0]]
    epochs = defaultdict(list)
    for epoch, example in first:
        epochs[epoch].append(example)
    n = len(next(iter(tiny_pipeline(task).columns("train").values())))

    assert all(order == first for order in orders.values()), orders
    assert sorted(epochs) == [0, 1]
    assert all(sorted(examples) == list(range(n)) for examples in epochs.values()), "an epoch is every example once"
    assert epochs[0] != epochs[1], "two epochs have the same order"


@MORE_WORKERS_THAN_CORES
def test_workers_change_nothing(task: str, engine: str, device: str) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 1.0})  # each pass over the data starts its workers again
    alone, helped = (
        run(engine, tiny_pipeline(task), device=device, recipe=recipe, workers=workers) for workers in (0, 2)
    )

    assert_same_bits(alone, helped, what="data loaded by two workers")


def test_an_evaluation_does_not_depend_on_batches_or_processes(task: str, device: str) -> None:
    pipeline = tiny_pipeline(task)
    set_seed(0)
    model = pipeline.model().to(device)  # type: ignore[arg-type]
    expected = None
    for batch_size in (1, 3, 64):
        for world in (1, 2, 3):
            shares = [
                predict_share(
                    pipeline, model=model, device=torch.device(device), batch_size=batch_size, rank=rank, world=world
                )
                for rank in range(world)
            ]
            scores = score_shares(pipeline, shares)
            expected = expected or scores
            assert_same_scores(expected, scores, what=f"batches of {batch_size} in {world} processes")


def test_an_evaluation_does_not_depend_on_the_engine(task: str, engines: tuple[str, ...], device: str) -> None:
    pipeline = tiny_pipeline(task)
    set_seed(0)
    model = pipeline.model()
    expected = None
    for engine in engines:
        for batch_size in (3, 64):
            execution = Execution(seed=7, device=device, eval_batch_size=batch_size)
            scores = pipeline.score(load_engine(engine).evaluate(pipeline, model, execution=execution))
            expected = expected or scores
            assert_same_scores(expected, scores, what=f"{engine} with batches of {batch_size}")


def assert_same_scores(expected: list[Score], actual: list[Score], *, what: str) -> None:
    __tracebackhide__ = True
    for before, after in zip(expected, actual, strict=True):
        assert (after.name, after.n) == (before.name, before.n), what
        # Rows padded to other widths are summed in another order; a batch counted twice is off by a percent.
        assert after.value == pytest.approx(before.value, rel=1e-5), f"{after.name}: {what}"


@MORE_WORKERS_THAN_CORES
def test_evaluation_masks_are_fixed() -> None:
    hidden = []
    for seed, batch_size, workers in ((0, 1, 0), (1, 5, 0), (2, 64, 2)):
        pipeline = tiny_pipeline("masked-lm", seed=seed)
        loader, indices = evaluation_batches(pipeline, batch_size=batch_size, workers=workers)
        rows = [row[row != IGNORED].tolist() for batch in loader for row in batch["labels"]]
        hidden.append(dict(zip(indices, rows, strict=True)))

    assert any(hidden[0].values())
    assert hidden[1] == hidden[0], "another seed or batch size hides other tokens"
    assert hidden[2] == hidden[0], "with workers other tokens are hidden"
