"""The stages in an environment without the packages that only `touchstone[suite]` installs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import environment

ROOT = Path(__file__).parents[2]

MISSING = (
    "evaluate", "hypothesis", "nltk", "psutil", "pynvml", "rouge_score", "sacrebleu", "scipy", "sentencepiece",
    "seqeval", "sklearn",
)  # fmt: skip
"""Modules of the suite's dependencies, and of their dependencies, that a core install may not have."""

NEED_THE_SUITE = {
    "score_entities([[0]], references=[[0]], names=['O'])": "score_entities needs seqeval",
    "bleu(['a'], references=['a'])": "bleu needs sacrebleu",
    "rouge(['a'], references=['a'])": "rouge needs rouge-score",
}

BLOCK = f"import sys; sys.modules.update(dict.fromkeys({MISSING!r})); "


def run(source: str) -> subprocess.CompletedProcess[str]:
    """Run Python in which none of the missing modules can be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK + source],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_examples_of_all_other_stages_run_in_a_core_install() -> None:
    done = run(
        "import doctest; from touchstone import contract, stages\n"
        "needing = ('score_entities', 'bleu', 'rouge')\n"
        "runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)\n"
        "for name in contract.NAMES:\n"
        "    if name not in needing:\n"
        "        for test in doctest.DocTestFinder().find(getattr(stages, name), name):\n"
        "            runner.run(test)\n"
        "print(runner.failures, runner.tries, 'torch' in sys.modules)\n"
    )

    assert done.returncode == 0, done.stderr
    failures, tries, torch = done.stdout.split("\n")[-2].split()
    assert (failures, torch) == ("0", "False"), done.stdout
    assert int(tries) >= 23


@pytest.mark.parametrize(
    ("call", "message"), NEED_THE_SUITE.items(), ids=[call.split("(")[0] for call in NEED_THE_SUITE]
)
def test_a_stage_that_needs_a_missing_package_says_what_to_install(call: str, message: str) -> None:
    done = run(f"from touchstone.stages import *; {call}")

    assert done.stderr.splitlines()[-1] == f'ImportError: {message}: run pip install "touchstone[suite]"'


def test_importing_the_evaluate_metrics_says_what_to_install() -> None:
    done = run("import touchstone.stages.metrics")

    message = 'ImportError: touchstone.stages.metrics needs evaluate: run pip install "touchstone[suite]"'
    assert done.stderr.splitlines()[-1] == message
