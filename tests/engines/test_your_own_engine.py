"""The engine on the page docs/your-own-engine.md: it trains specs and passes the reproducibility suite."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.suite.test_plugin import SPEC
from tests.support.environment import environment
from touchstone.engines import load_engine
from touchstone.engines.training import Execution, Recipe
from touchstone.pipelines import PIPELINES
from touchstone.records.record import read_records
from touchstone.suite.reproducibility.comparing import assert_close_losses
from touchstone.suite.reproducibility.tiny import tiny_pipeline

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "your-own-engine.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with the page's engine and a spec."""
    folder = tmp_path_factory.mktemp("user")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (folder / "my_engine.py").write_text(code, encoding="utf-8")
    (folder / "tiny.toml").write_text(SPEC, encoding="utf-8")
    return folder


def suite(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as its own command, which does not put the working directory on the path."""
    script = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-P", "-c", script, *arguments, "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=500)


def test_the_pages_engine_trains_a_spec(folder: Path) -> None:
    options = ["--engine", "my_engine:train", "--spec", str(folder / "tiny.toml"), "--results", str(folder / "results")]
    process = suite(folder, str(ROOT / "suite" / "training"), *options)

    assert process.returncode == 0, process.stdout + process.stderr
    (record,) = read_records(folder / "results")
    assert record.engine == "my_engine-train"
    assert record.efficiency is not None
    (file,) = (folder / "results").glob("*/*.json")
    assert file.name == "tiny.embedded.my_engine-train.fp32.seed42.json"


@pytest.mark.parametrize("task", list(PIPELINES))
def test_the_pages_engine_trains_every_task_as_the_loop_does(
    task: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    recipe = Recipe(epochs=2, batch_size=2, accumulation=2, learning_rate=2e-3, weight_decay=0.01)
    runs = [
        load_engine(name).train(tiny_pipeline(task, dropout=0.0), recipe=recipe, execution=Execution(seed=7))
        for name in ("loop", "my_engine:train")
    ]

    assert_close_losses(*runs, within=1e-5, what="the loop and the page's engine, without dropout")


def test_the_pages_engine_passes_the_reproducibility_suite(folder: Path) -> None:
    options = ["--engine", "my_engine:train", "--task", "masked-lm"]
    process = suite(folder, str(ROOT / "suite" / "reproducibility"), *options)

    assert process.returncode == 0, process.stdout + process.stderr


def test_an_unknown_engine_is_a_usage_error_of_the_reproducibility_suite(folder: Path) -> None:
    process = suite(folder, str(ROOT / "suite" / "reproducibility"), "--engine", "my_engin:train")

    assert process.returncode == pytest.ExitCode.USAGE_ERROR, process.stdout + process.stderr
    assert "ERROR: --engine my_engin:train: there is no module 'my_engin'" in process.stdout + process.stderr


def test_an_engine_without_its_function_fails_the_run_with_the_reason(folder: Path) -> None:
    options = ["--engine", "my_engine:trian", "--spec", str(folder / "tiny.toml")]
    process = suite(folder, str(ROOT / "suite" / "training"), *options)

    assert process.returncode == 1
    assert "my_engine has no attribute 'trian'; did you mean train?" in process.stdout
