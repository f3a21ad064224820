"""What must not change a result: a second run, an interruption, how a step or an evaluation is cut, who loads the data.

Small runs on the microworld, with the engines, the device and the tasks that the command line asks for.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import set_seed

from touchstone.engines import ENGINES
from touchstone.engines.evaluation import predict_share, score_shares
from touchstone.engines.order import evaluation_batches
from touchstone.engines.training import Execution, Progress, Recipe, TrainingRun
from touchstone.interface.config import CONFIG
from touchstone.interface.options import split_task
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import Pipeline
from touchstone.suite.reproducibility.comparing import assert_close_losses, assert_same_bits, assert_same_update
from touchstone.suite.reproducibility.tiny import Watched, tiny_pipeline

MORE_WORKERS_THAN_CORES = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
"""On one core torch advises against two workers: slow, and no less right."""
RECIPE = Recipe(epochs=2, batch_size=4, accumulation=2, learning_rate=2e-3, warmup_steps=2, weight_decay=0.01)
# Adam with so large an epsilon is nearly plain gradient descent, and nothing is clipped: a gradient that is too large
# by a factor moves the weights too far by that factor, which Adam and clipping would hide.
SCALE_SENSITIVE: dict[str, Any] = {"epsilon": 1.0, "max_grad_norm": 1e6, "learning_rate": 0.1, "schedule": "constant"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    session = metafunc.config.stash[CONFIG]
    tasks = {split_task(task)[0] for task in session.tasks} or set(PIPELINES)
    if "task" in metafunc.fixturenames:
        metafunc.parametrize("task", [task for task in PIPELINES if task in tasks])
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", [name for name in ENGINES if not session.engines or name in session.engines])


@pytest.fixture
def device(pytestconfig: pytest.Config) -> str:
    return pytestconfig.stash[CONFIG].device


def run(
    engine: str, pipeline: Pipeline, *, device: str, recipe: Recipe = RECIPE, report: Any = None, **how: Any
) -> TrainingRun:
    return ENGINES[engine](
        pipeline, recipe=recipe, execution=Execution(device=device, **{"seed": 7, **how}), report=report
    )


def test_the_same_seed_gives_the_same_bits(task: str, engine: str, device: str) -> None:
    first, second = (run(engine, tiny_pipeline(task), device=device) for _ in range(2))

    assert_same_bits(first, second, what="a second run with the same seed")


def test_another_seed_gives_another_run(task: str, engine: str, device: str) -> None:
    first, second = (run(engine, tiny_pipeline(task), device=device, seed=seed) for seed in (7, 8))

    assert [point.loss for point in first.trajectory] != [point.loss for point in second.trajectory]


class Interrupted(Exception):
    pass


def test_a_resumed_run_equals_the_uninterrupted_one(task: str, engine: str, device: str, tmp_path: Path) -> None:
    saves = 0

    def interrupt(progress: Progress) -> None:
        nonlocal saves
        saves += progress.phase == "save"
        if saves and progress.phase == "evaluate":
            raise Interrupted

    whole = run(engine, tiny_pipeline(task), device=device)
    with pytest.raises(Interrupted):
        run(engine, tiny_pipeline(task), device=device, save_dir=tmp_path, report=interrupt)
    resumed = run(engine, tiny_pipeline(task), device=device, save_dir=tmp_path, resume=True)

    assert_same_bits(whole, resumed, what="a run that was interrupted in its second epoch and resumed")


def test_an_update_does_not_depend_on_how_its_batch_is_cut(task: str, engine: str, device: str) -> None:
    cuts = [(8, 1), (4, 2), (1, 8)]
    runs = []
    for batch_size, accumulation in cuts:
        recipe = RECIPE.model_copy(
            update={"batch_size": batch_size, "accumulation": accumulation, "epochs": 1.0, **SCALE_SENSITIVE}
        )
        runs.append(run(engine, tiny_pipeline(task, dropout=0.0), device=device, recipe=recipe))

    # Rounding gives 4e-9 of the weights' norm here, means of micro-batch means 6e-5 and more, their sum 1e-4 and more.
    names = [f"{accumulation} micro-batches of {batch_size}" for batch_size, accumulation in cuts]
    assert_same_update(runs, within=1e-6, what=names)
    for other in runs[1:]:
        assert_close_losses(runs[0], other, within=1e-4, what="the same batches, cut otherwise")


def test_engines_give_the_same_losses(task: str, device: str) -> None:
    recipe = RECIPE.model_copy(update={"batch_size": 1, "epochs": 2.0})
    runs = [run(engine, tiny_pipeline(task, dropout=0.0), device=device, recipe=recipe) for engine in ENGINES]

    assert len(runs[0].trajectory) >= 20
    for other in runs[1:]:
        assert_close_losses(runs[0], other, within=1e-5, what=f"{' and '.join(ENGINES)}, without dropout")


def test_engines_take_the_same_examples_in_the_same_order(task: str, device: str) -> None:
    orders = {}
    for engine in ENGINES:
        pipeline = tiny_pipeline(task)
        watched = Watched(pipeline)
        run(engine, pipeline, device=device)
        orders[engine] = watched.seen
    first = next(iter(orders.values()))
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
    recipe = RECIPE.model_copy(update={"epochs": 1.0})  # each pass over the data starts its workers anew
    alone, helped = (
        run(engine, tiny_pipeline(task), device=device, recipe=recipe, workers=workers) for workers in (0, 2)
    )

    assert_same_bits(alone, helped, what="data loaded by two workers")


def test_an_evaluation_does_not_depend_on_how_it_is_cut(task: str, device: str) -> None:
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
            got = {score.name: (score.n, score.value) for score in score_shares(pipeline, shares)}
            expected = expected or got
            for name, (n, value) in got.items():
                context = f"{name} with batches of {batch_size} in {world} processes"
                assert n == expected[name][0], f"{context} counts {n}, not {expected[name][0]}"
                # Rows padded to other widths are summed in another order; a batch counted twice is off by a percent.
                assert value == pytest.approx(expected[name][1], rel=1e-5), context


@MORE_WORKERS_THAN_CORES
def test_evaluation_masks_are_fixed() -> None:
    hidden = []
    for seed, batch_size, workers in ((0, 1, 0), (1, 5, 0), (2, 64, 2)):
        pipeline = tiny_pipeline("masked-lm", seed=seed)
        loader, indices = evaluation_batches(pipeline, batch_size=batch_size, workers=workers)
        rows = [row[row != -100].tolist() for batch in loader for row in batch["labels"]]
        hidden.append(dict(zip(indices, rows, strict=True)))

    assert any(hidden[0].values())
    assert hidden[0] == hidden[1], "another seed or batch size hides other tokens"
    assert hidden[0] == hidden[2], "with workers other tokens are hidden"
