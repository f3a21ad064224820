"""Every faulty script fails, or is warned of, in a probe that names its cause; no clean script has a fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.zoo.fault import CLEAN, Fault, all_faults, clean_scripts
from tests.zoo.matrix import failed_probes, probes_with
from tests.zoo.run import audit_text, make_assets
from touchstone.auditing.probe import INTERNAL


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_assets(tmp_path_factory.mktemp("zoo"))


@pytest.mark.parametrize("fault", all_faults(), ids=lambda fault: fault.id)
def test_a_faulty_script_is_found_by_a_probe_that_names_its_cause(fault: Fault, assets: Path) -> None:
    report = audit_text(fault.text(), assets, budget=fault.budget)
    assert "error" not in report, report["error"]
    failed = failed_probes(report)
    assert set(failed) == set(fault.probes), "\n".join(f"{probe}: {text}" for probe, text in failed.items())
    warned = probes_with("warn", report)
    assert set(fault.warns) <= set(warned), f"warned: {', '.join(warned)}"
    for text in (*failed.values(), *(warned[probe] for probe in fault.warns)):
        assert re.search(fault.cause, text), text


@pytest.mark.parametrize("fault", [each for each in all_faults() if each.warns], ids=lambda fault: fault.id)
def test_the_clean_twin_is_not_warned_of_the_fault(fault: Fault, assets: Path) -> None:
    report = audit_text((CLEAN / f"{fault.script}.py").read_text(encoding="utf-8"), assets, budget=fault.budget)
    same = {probe: text for probe, text in probes_with("warn", report).items() if probe in fault.warns}
    assert not [text for text in same.values() if re.search(fault.cause, text)]


@pytest.mark.parametrize("script", clean_scripts(), ids=lambda script: script.stem)
def test_no_clean_script_has_a_fail(script: Path, assets: Path) -> None:
    report = audit_text(script.read_text(encoding="utf-8"), assets)
    assert "error" not in report, report["error"]
    assert failed_probes(report) == {}
    assert [each for each in report["findings"] if INTERNAL in each["message"]] == []
