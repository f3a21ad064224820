"""Every faulty script fails in a probe that names its cause; no clean script has a fail.

With TOUCHSTONE_ZOO_BUDGET=fast only the fast probes run, and the faults that need others are skipped.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.zoo.assets import write_assets
from tests.zoo.fault import Fault, all_faults, clean_scripts
from tests.zoo.run import audit_text
from touchstone.auditing.probe import BUDGETS, INTERNAL, load_probes

LARGEST = os.environ.get("TOUCHSTONE_ZOO_BUDGET", "deep")
LEVELS = list(BUDGETS)


def within(budget: str) -> str:
    """Return the budget, or the largest that these tests may use."""
    return min(budget, LARGEST, key=LEVELS.index)


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_assets(tmp_path_factory.mktemp("zoo"))


@pytest.mark.parametrize("fault", all_faults(), ids=lambda fault: fault.id)
def test_a_faulty_script_fails_in_a_probe_that_names_its_cause(fault: Fault, assets: Path) -> None:
    needed = max((load_probes()[each].budget for each in fault.probes), key=LEVELS.index)
    if within(needed) != needed:
        pytest.skip(f"its probes need the budget {needed}")
    report = audit_text(fault.text(), assets, budget=within(fault.budget))
    assert "error" not in report, report["error"]
    failed = {
        each["probe"]: f"{each['message']} {each['cause']}" for each in report["findings"] if each["outcome"] == "fail"
    }
    assert set(failed) == set(fault.probes)
    for text in failed.values():
        assert re.search(fault.cause, text), text


@pytest.mark.parametrize("script", clean_scripts(), ids=lambda script: script.stem)
def test_no_clean_script_has_a_fail(script: Path, assets: Path) -> None:
    report = audit_text(script.read_text(encoding="utf-8"), assets, budget=within("default"))
    assert "error" not in report, report["error"]
    assert [each for each in report["findings"] if each["outcome"] == "fail"] == []
    assert [each for each in report["findings"] if INTERNAL in each["message"]] == []
