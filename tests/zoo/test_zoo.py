"""Every faulty script fails in a probe that names its cause; no clean script has a fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.zoo.fault import Fault, all_faults, clean_scripts
from tests.zoo.matrix import failed_probes
from tests.zoo.run import audit_text, make_assets
from touchstone.auditing.probe import INTERNAL


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_assets(tmp_path_factory.mktemp("zoo"))


@pytest.mark.parametrize("fault", all_faults(), ids=lambda fault: fault.id)
def test_a_faulty_script_fails_in_a_probe_that_names_its_cause(fault: Fault, assets: Path) -> None:
    report = audit_text(fault.text(), assets, budget=fault.budget)
    assert "error" not in report, report["error"]
    failed = failed_probes(report)
    assert set(failed) == set(fault.probes), "\n".join(f"{probe}: {text}" for probe, text in failed.items())
    for text in failed.values():
        assert re.search(fault.cause, text), text


@pytest.mark.parametrize("script", clean_scripts(), ids=lambda script: script.stem)
def test_no_clean_script_has_a_fail(script: Path, assets: Path) -> None:
    report = audit_text(script.read_text(encoding="utf-8"), assets)
    assert "error" not in report, report["error"]
    assert failed_probes(report) == {}
    assert [each for each in report["findings"] if INTERNAL in each["message"]] == []
