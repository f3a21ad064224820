"""Names of engines: built-in, from entry points, and `package.module:attribute`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from touchstone import engines
from touchstone.engines import EngineError, check_engine, engine_names, engine_slug, load_engine
from touchstone.engines.engine import Engine
from touchstone.engines.evaluation import predict_validation

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module `my_engine`, not on the path yet."""
    (tmp_path / "my_engine.py").write_text(
        "from touchstone.engines.engine import Engine\n"
        "def train(pipeline, *, recipe, execution, report=None): ...\n"
        "def evaluate(pipeline, model, *, execution): ...\n"
        "both = Engine(train, evaluate)\n"
        "number = 3\n"
    )
    (tmp_path / "broken_engine.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("my_engine", "broken_engine"):
        sys.modules.pop(name, None)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two packages that add engines, one of them under a built-in name."""
    points = [
        EntryPoint("fast", "my_engine:both", engines.GROUP),
        EntryPoint("loop", "my_engine:train", engines.GROUP),
    ]
    monkeypatch.setattr(engines, "entry_points", lambda group: points if group == engines.GROUP else [])
    engines._places.cache_clear()
    yield
    engines._places.cache_clear()


def test_engine_names_are_the_built_in_ones_and_those_of_entry_points(installed: None) -> None:
    assert engine_names() == ("trainer", "loop", "fast")


def test_load_engine_finds_an_engine_of_an_entry_point(here: Path, installed: None) -> None:
    assert load_engine("fast") is sys.modules["my_engine"].both


def test_load_engine_keeps_a_built_in_name_from_being_replaced(here: Path, installed: None) -> None:
    assert load_engine("loop").train.__module__ == "touchstone.engines.loop"  # type: ignore[attr-defined]


def test_load_engine_makes_an_engine_of_a_train_function_in_the_working_directory(here: Path) -> None:
    assert load_engine("my_engine:train") == Engine(sys.modules["my_engine"].train, predict_validation)


def test_the_packed_engine_is_registered_by_its_package() -> None:
    """If this fails, the installed metadata is old: install the project again."""
    assert "packed" in engine_names()
    assert load_engine("packed").evaluate is not predict_validation


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lopo", r"there is no engine 'lopo'; possible: trainer, loop.*package\.module:attribute.*did you mean loop\?"),
        ("my_engine.py:train", r"importing my_engine.py raised ModuleNotFoundError"),
        ("my/engine:train", r"'my/engine:train' does not name a Python object: write package\.module:attribute"),
        ("my_engine:", r"'my_engine:' does not name a Python object"),
        ("no_such_package.engine:train", r"there is no module 'no_such_package' .*install it, or run from the folder"),
        ("my_engine:trian", r"my_engine has no attribute 'trian'; did you mean train\?"),
        ("my_engine:number", r"engine 'my_engine:number' is a int, which cannot train: name a function"),
        ("broken_engine:train", r"importing broken_engine raised ModuleNotFoundError: No module named 'no_such_lib"),
    ],
)
def test_load_engine_says_what_is_wrong_with_a_name(name: str, message: str, here: Path) -> None:
    with pytest.raises(EngineError, match=message):
        load_engine(name)


def test_check_engine_imports_nothing(here: Path) -> None:
    check_engine("my_engine:train")
    check_engine("broken_engine:train")

    assert not {"my_engine", "broken_engine"} & set(sys.modules)


def test_listing_engines_imports_neither_engines_nor_torch() -> None:
    code = (
        "import sys; from touchstone.engines import check_engine, engine_names\n"
        "[check_engine(name) for name in engine_names()]\n"
        "print(*{'torch', 'transformers', 'touchstone.engines.loop', 'touchstone.packed'} & set(sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert process.stdout.strip() == ""


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("packed", "packed"),
        ("mypkg.engine:train", "mypkg-engine-train"),
        ("_My.Own:_Train", "my-own-_train"),
        (f"{'a' * 200}:train", f"{'a' * 94}-train"),
    ],
)
def test_engine_slug_fits_into_a_record(name: str, slug: str) -> None:
    assert engine_slug(name) == slug
