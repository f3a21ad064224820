"""`touchstone conformance`: the matrix of several implementations, its pages, exit codes; and the shipped adapters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.properties.test_properties_plugin import RIGHT, WRONG
from tools.conformance import implementations, page
from touchstone.properties.check import all_checks, ids
from touchstone.properties.conformance import Examined, as_json, conformance
from touchstone.properties.conformance_page import html, markdown, matrix
from touchstone.properties.known import known_failures
from touchstone.properties.subject import ImplementationError, load

ROOT = Path(__file__).parents[2]
HOSTILE = """
def perplexity(losses, *, tokens):
    return "<script>alert(1)</script> | `"
"""
MODULES = {
    "right_ppl": RIGHT,
    "wrong_ppl": WRONG,
    "hostile_ppl": HOSTILE,
    "broken_ppl": "import nothing_of_this_name\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("implementations")
    for name, source in MODULES.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def examined(folder: Path) -> list[Examined]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        return conformance(list(MODULES), examples=10)


def test_every_implementation_is_examined_by_all_checks_that_it_offers(examined: list[Examined]) -> None:
    right, wrong, _, broken = examined

    assert right.functions == ("perplexity",)
    assert right.summary.ran == ["X1", "X2", "X3", "X4"]
    assert right.failures() == []
    assert {each.outcome.id for each in wrong.failures(kind="result")} == {"X1", "X3", "X4"}
    assert "perplexity(" in wrong.failures("X3")[0].paste
    assert broken.found == ()
    assert "nothing_of_this_name" in broken.problem


def test_the_markdown_has_a_row_for_each_check_that_fails_and_its_smallest_example(examined: list[Examined]) -> None:
    text = markdown(examined)

    assert "| X3 |  ✓ | ✗ |".replace("  ", " ") in text
    assert "| X2 |" in text  # fails on one of them
    assert "## 2. `wrong_ppl`" in text
    assert "from wrong_ppl import perplexity; perplexity(" in text
    assert "Not examined: broken_ppl needs 'nothing_of_this_name', which is not installed" in text
    assert max(map(len, (line for line in text.splitlines() if not line.startswith(("|", "    "))))) <= 120


def test_the_page_is_escaped_and_loads_nothing(examined: list[Examined]) -> None:
    text = html(examined)

    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "http" not in text.replace("http-equiv", "")


def test_the_terminal_shows_a_column_for_each_implementation(examined: list[Examined]) -> None:
    console = Console(width=100, record=True, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    console.print(matrix(examined))
    console.file.close()

    row = next(line for line in console.export_text().splitlines() if line.startswith("X3"))
    assert row.split()[1:3] == ["✓", "✗"]


def test_the_json_has_all_outcomes(examined: list[Examined]) -> None:
    data = json.loads(json.dumps(as_json(examined)))

    assert data["checks"] == list(ids())
    assert [each["name"] for each in data["implementations"]] == list(MODULES)
    tests = data["implementations"][1]["tests"]
    assert len(tests) == len(all_checks())
    assert {each["status"] for each in tests} == {"holds", "fails", "not offered"}


@pytest.mark.parametrize(
    ("names", "code"), [(["right_ppl"], 0), (["right_ppl", "wrong_ppl"], 1), (["wrong_ppl", "broken_ppl"], 2)]
)
def test_the_exit_code_says_whether_a_result_is_wrong(folder: Path, names: list[str], code: int) -> None:
    command = [sys.executable, "-m", "touchstone", "conformance", *names, "--examples", "5", "--md", "matrix.md"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == code, done.stdout + done.stderr
    assert (folder / "matrix.md").read_text(encoding="utf-8").startswith("| # |")


@pytest.mark.parametrize("name", implementations())
def test_an_adapter_can_be_asked_and_its_known_failures_name_checks_that_it_offers(name: str) -> None:
    try:
        subject = load(f"touchstone.suite.implementations.{name}")
    except ImplementationError as error:
        if "not installed" in str(error):
            pytest.skip(str(error))
        raise
    offered = {check.id for check in all_checks() if not check.missing(subject)}

    assert subject.domain.unusable == {}
    assert set(known_failures(subject.module, None)) <= offered
    assert sys.modules[subject.module].__doc__


def test_the_page_says_what_each_implementation_stands_for() -> None:
    text = page([Examined("touchstone.suite.implementations.run_ner", problem="not run")], examples=7)

    assert "with 7 examples per test" in " ".join(text.split())
    assert "| 1 | [run_ner](../suite/implementations/run_ner.py) | transformers' example run_ner.py" in text
