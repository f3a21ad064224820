"""`touchstone.TrainerAudit` in a user's own suite: one test per probe."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import environment
from tests.support.forked import run_forked
from touchstone.auditing.probe import load_probes

ROOT = Path(__file__).parents[2]
PROBE = "special-tokens-unlabelled"
SUITE = """
import torch
import touchstone
from transformers import AutoModelForTokenClassification, AutoTokenizer, Trainer, TrainingArguments
from transformers import DataCollatorForTokenClassification

class TestFaulty(touchstone.TrainerAudit):
    task = "token-classification"
    special = 0

    def make_trainer(self, **overrides):
        assert "made" not in vars(type(self)), "the trainer is made once"
        type(self).made = True
        tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
        rows = [tokenizer(text) for text in ("Ada wrote it.", "The institute is here.") * 4]
        for row in rows:
            row["labels"] = [self.special, *[1] * (len(row["input_ids"]) - 2), self.special]
        return Trainer(
            AutoModelForTokenClassification.from_pretrained("tiny-bert", num_labels=2),
            TrainingArguments("out", report_to="none", **overrides),
            DataCollatorForTokenClassification(tokenizer),
            train_dataset=[dict(row) for row in rows],
            processing_class=tokenizer,
        )

class TestRight(TestFaulty):
    special = -100

class TestIgnored(TestFaulty):
    ignore = {"special-tokens-unlabelled": "they are words here"}

class TestForgotten(TestRight):
    ignore = {"special-tokens-unlabelled": "was wrong once"}

class TestAnyTask(TestRight):
    task = None

class TestUndefined(touchstone.TrainerAudit):
    pass
"""


@pytest.fixture(scope="module")
def folder(zoo_assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("testcase") / "run"
    shutil.copytree(zoo_assets, folder)
    (folder / "test_mine.py").write_text(SUITE)
    return folder


def run(*words: str, folder: Path) -> str:
    """Run pytest on the user's suite in an interpreter of its own and return what it prints."""
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        timeout=240,
    )
    return process.stdout + process.stderr


def collect(*words: str, folder: Path) -> str:
    """Let pytest collect tests of the user's suite in a forked process and return what it prints."""
    done = run_forked(pytest.main, ("-p", "no:cacheprovider", "--collect-only", *words), folder=folder)
    return done.stdout + done.stderr


def test_each_finding_is_the_outcome_of_one_test(folder: Path) -> None:
    # Without the plugins that the extra "suite" installs.
    text = run(
        "-v", "-rA", "-k", PROBE, "-p", "no:hypothesispytest", "-p", "no:benchmark", "test_mine.py", folder=folder
    )

    outcomes = dict(re.findall(rf"test_mine\.py::(\w+)::test_probe\[{PROBE}\] ([A-Z]+)", text))
    assert outcomes == {
        "TestFaulty": "FAILED",
        "TestRight": "PASSED",
        "TestIgnored": "XFAIL",
        "TestForgotten": "PASSED",
        "TestAnyTask": "PASSED",
        "TestUndefined": "ERROR",
    }, text
    assert re.search(r"FAIL  .* special tokens have labels", text)
    assert "give special tokens the label -100" in text
    assert "they are words here" in text
    assert f"AuditWarning: {PROBE} passes now: remove it from ignore" in text
    assert "TestUndefined must define make_trainer(self, **overrides)" in text


def test_there_is_a_test_for_every_probe_of_the_task(folder: Path) -> None:
    text = collect("-q", "test_mine.py::TestRight", "test_mine.py::TestAnyTask", folder=folder)

    probes = load_probes().values()
    for name, expected in (
        ("TestRight", [each.id for each in probes if "token-classification" in each.tasks]),
        ("TestAnyTask", [each.id for each in probes]),
    ):
        assert re.findall(rf"test_mine\.py::{name}::test_probe\[(.+)\]", text) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("budget = 'quick'", "TestWrong.budget is 'quick': possible are fast, default, deep"),
        (f"ignore = {{'{PROBE}': ''}}", f"TestWrong.ignore has no reason for {PROBE}"),
        ("ignore = {'special-token-unlabelled': 'x'}", f"did you mean {PROBE}?"),
    ],
)
def test_a_wrong_attribute_is_an_error_of_collection(line: str, message: str, folder: Path) -> None:
    (folder / "test_wrong.py").write_text(f"import touchstone\nclass TestWrong(touchstone.TrainerAudit):\n    {line}\n")

    assert message in collect("test_wrong.py", folder=folder)


def test_import_touchstone_imports_neither_torch_nor_pytest() -> None:
    program = "import sys, touchstone; print({'torch', 'pytest', 'transformers'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)

    assert process.stdout.strip() == "set()"
