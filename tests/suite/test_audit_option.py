"""`pytest suite/ --audit` audits what the specs would train."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.suite.test_plugin import command, run, write_spec
from tests.support.environment import environment


def test_the_trainer_of_a_spec_is_audited_instead_of_trained(tmp_path: Path) -> None:
    finished = run(write_spec(tmp_path / "house"), "--audit", "-rA", "-k", "audit")

    assert finished.code == 0, finished.text
    assert "test_the_audit_finds_no_fault[tiny-trainer-seed42]" in finished.text
    assert "\nno fault, " in finished.text
    assert not list(finished.results.rglob("*.json")), "nothing was trained"


def test_an_engine_without_a_trainer_is_refused(tmp_path: Path) -> None:
    words = command(write_spec(tmp_path / "house"), tmp_path / "results", "--audit")
    words[words.index("--engine") + 1] = "loop"

    process = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=120)

    assert process.returncode == 4
    assert "--audit needs the engine trainer" in process.stdout + process.stderr
