"""The engines: how long a training step takes, beside transformers.Trainer's in the same minutes."""

from __future__ import annotations

import pytest

from reference.pipelines import PIPELINES
from suite.records.speed import Steps, TaskSpeed
from suite.sessions.options import split_task
from suite.sessions.session import SESSION
from suite.specs.spec import load_spec
from suite.throughput.conftest import SPEEDS
from suite.throughput.steps import WAYS, StepsError, race_engines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = {split_task(task)[0] for task in metafunc.config.stash[SESSION].tasks}
    metafunc.parametrize("task", [task for task in PIPELINES if not asked or task in asked])


def test_training_steps(task: str, pytestconfig: pytest.Config) -> None:
    session = pytestconfig.stash[SESSION]
    spec = load_spec(task, profile=session.profile)
    mirror = None if session.mirror is None else str(session.mirror)
    ways = [way for way in WAYS if way == WAYS[0] or not session.engines or way.split(":")[0] in session.engines]
    try:
        found = race_engines(
            {"spec": task, "profile": session.profile, "mirror": mirror},
            ways=ways,
            rounds=pytestconfig.getoption("--rounds"),
            log=session.logs / f"speed-{task}.log",
        )
    except StepsError as error:
        pytest.fail(str(error), pytrace=False)
    engines = []
    for way, results in found.items():
        engine, precision = way.split(":")
        last = results[-1]
        engines.append(
            Steps(
                engine=engine,
                precision=precision,
                rounds=tuple(tuple(result["seconds"]) for result in results),
                samples=last["samples"],
                tokens=last["tokens"],
                floor_seconds=last["floor"],
            )
        )
    steps = found[WAYS[0]][-1]["steps"]
    speed = TaskSpeed(task=task, spec_hash=spec.hash, steps_in_all=steps, engines=tuple(engines))
    pytestconfig.stash.setdefault(SPEEDS, []).append(speed)
    (session.logs / f"speed-{task}.log").unlink(missing_ok=True)

    samples = {way: results[-1]["samples"] for way, results in found.items()}
    assert len(set(samples.values())) == 1, f"the engines did not take the same steps: {samples}"
