"""Time the engines' training steps and evaluation, in turns with those of transformers.Trainer."""

from __future__ import annotations

import pytest

from touchstone.engines import engine_slug
from touchstone.interface.config import CONFIG
from touchstone.interface.options import split_task
from touchstone.pipelines import PIPELINES
from touchstone.records.timing import Steps, TaskSpeed
from touchstone.runs.isolation import Message
from touchstone.specs.spec import load_spec
from touchstone.suite.throughput.evaluation import EVALUATE, EVALUATION_WAYS
from touchstone.suite.throughput.found import SPEEDS
from touchstone.suite.throughput.steps import TAKE_STEPS, WAYS, StepsError, race


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    named = {split_task(task)[0] for task in metafunc.config.stash[CONFIG].tasks}
    metafunc.parametrize("task", [task for task in PIPELINES if not named or task in named])


def test_training_and_evaluation(task: str, pytestconfig: pytest.Config) -> None:
    session = pytestconfig.stash[CONFIG]
    spec = load_spec(task, profile=session.profile)
    steps = time_ways(TAKE_STEPS, task=task, ways=WAYS, config=pytestconfig)
    evaluation = time_ways(EVALUATE, task=task, ways=EVALUATION_WAYS, config=pytestconfig)
    speed = TaskSpeed(
        task=task,
        spec_hash=spec.hash,
        steps_in_all=steps[WAYS[0]][-1]["steps"],
        engines=as_steps(steps),
        evaluation=as_steps(evaluation),
    )
    pytestconfig.stash.setdefault(SPEEDS, []).append(speed)
    (session.logs / f"speed-{task}.log").unlink(missing_ok=True)

    for found in (steps, evaluation):
        samples = {way: results[-1]["samples"] for way, results in found.items()}
        assert len(set(samples.values())) == 1, f"the engines used different numbers of examples: {samples}"


def time_ways(target: str, *, task: str, ways: tuple[str, ...], config: pytest.Config) -> dict[str, list[Message]]:
    """Time the first way and those of the engines named with `--engine`. An engine without a way runs in fp32."""
    session = config.stash[CONFIG]
    named = session.engines
    have = {way.rpartition(":")[0] for way in ways}
    chosen = [way for way in ways if way == ways[0] or not named or way.rpartition(":")[0] in named]
    chosen += [f"{engine}:fp32" for engine in named if engine not in have]
    mirror = None if session.mirror is None else str(session.mirror)
    try:
        return race(
            target,
            {"spec": task, "profile": session.profile, "mirror": mirror},
            ways=chosen,
            rounds=config.getoption("--rounds"),
            log=session.logs / f"speed-{task}.log",
        )
    except StepsError as error:
        pytest.fail(str(error), pytrace=False)


def as_steps(found: dict[str, list[Message]]) -> tuple[Steps, ...]:
    engines = []
    for way, results in found.items():
        engine, _, precision = way.rpartition(":")
        last = results[-1]
        engines.append(
            Steps(
                engine=engine_slug(engine),
                precision=precision,
                rounds=tuple(tuple(result["seconds"]) for result in results),
                samples=last["samples"],
                tokens=last["tokens"],
                floor_seconds=last["floor"],
            )
        )
    return tuple(engines)
