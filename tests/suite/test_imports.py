"""Imports of the library and the command: they are fast, and packages of touchstone[suite] may be missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import touchstone
from tests.support.environment import environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
SUITE_ONLY = (
    "evaluate",
    "hypothesis",
    "nltk",
    "psutil",
    "pynvml",
    "pytest",
    "pytest_benchmark",
    "rouge_score",
    "sacrebleu",
    "sacremoses",
    "scipy",
    "sentencepiece",
    "seqeval",
    "sklearn",
)
"""The packages that only the extra touchstone[suite] installs, and what these depend on."""
HINT = 'is not installed; run: pip install "touchstone[suite]"'


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=240,
        check=False,
    )


def run_core(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as if only the core packages were installed."""
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({SUITE_ONLY}))\n"
        "from touchstone.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    return run_python(code, *arguments)


def test_import_touchstone_imports_no_dependency() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import touchstone; seconds = time.perf_counter() - start\n"
        "print({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - {'__main__'}, seconds)"
    )
    process = run_python(f"import sys; before = set(sys.modules)\n{code}\nprint(set(sys.modules) - before)")
    assert process.returncode == 0, process.stderr
    first, added = process.stdout.splitlines()
    for slow in ("torch", "numpy", "transformers", "datasets", "pydantic", "rich"):
        assert f"'{slow}'" not in added
    assert float(first.split()[-1]) < 0.1


def test_every_public_name_can_be_imported() -> None:
    assert {name: getattr(touchstone, name) for name in touchstone.__all__}
    assert set(touchstone.__all__) <= set(dir(touchstone))
    with pytest.raises(AttributeError, match="'touchstone' has no attribute 'stagse'"):
        _ = touchstone.stagse


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert touchstone.__version__ in (project["version"], "0+unknown")
    process = run_core("--version")
    assert (process.returncode, process.stdout) == (0, f"touchstone {touchstone.__version__}\n")


def test_help_works_with_the_core_packages() -> None:
    process = run_core("--help")
    assert process.returncode == 0
    assert process.stdout.startswith("usage: touchstone ")
    for name in ("show", "compare", "times", "hardware"):
        assert run_core(name, "--help").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "token-classification", "--samples", "1"),
        ("compare", "results/epyc-2c-24g-d52085", "results/xeon-2c-24g-d27172"),
        ("times", "results/epyc-2c-24g-d52085"),
        ("hardware", "--device", "cpu"),
        ("calibrate", "--help"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_works_with_the_core_packages_or_names_the_missing_one(arguments: tuple[str, ...]) -> None:
    process = run_core(*arguments)
    if HINT in process.stderr:
        assert process.returncode == 2
        assert len(process.stderr.splitlines()) == 1
    else:
        assert process.returncode in ((0, 1, 2, 3) if arguments[0] == "compare" else (0,)), process.stderr
        assert process.stdout
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("name", ["show", "calibrate", "hardware"])
def test_a_command_that_needs_newer_packages_names_the_outdated_one(name: str) -> None:
    code = (
        "import importlib.metadata as metadata, sys\n"
        "version = metadata.version\n"
        "metadata.version = lambda name: '4.57.0' if name == 'transformers' else version(name)\n"
        """metadata.requires = lambda name: ['transformers>=4.57', 'transformers>=5.20; extra == "suite"']\n"""
        "from touchstone.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    process = run_python(code, name)
    assert process.returncode == 2
    assert process.stderr == (
        "error: this command needs transformers >=5.20, and 4.57.0 is installed; "
        'run: pip install --upgrade "touchstone[suite]"\n'
    )
