"""Every faulty script fails, or is warned of, in a probe that names its cause; no clean script has a fail.

With TOUCHSTONE_ZOO=sample, one fault per probe runs, and one clean script per kind and style: what differs between
versions of the libraries differs in a style or in a probe, so CI takes the sample for its second set of versions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.zoo.fault import CLEAN, Fault, all_faults, clean_scripts
from tests.zoo.matrix import failed_probes, probes_with, style_of
from tests.zoo.run import audit_text
from touchstone.auditing.probe import INTERNAL

Entry = TypeVar("Entry")


def chosen(entries: Iterable[Entry], kind: Callable[[Entry], Hashable]) -> list[Entry]:
    """Return all entries, or the first of each kind if a sample is asked for."""
    entries = list(entries)
    if os.environ.get("TOUCHSTONE_ZOO") != "sample":
        return entries
    first: dict[Hashable, Entry] = {}
    for each in entries:
        first.setdefault(kind(each), each)
    return list(first.values())


def name_and_style(script: Path) -> Hashable:
    """Return the first word of a script's name, which is its task or its kind of model, and how it trains."""
    return script.stem.split("_")[0], style_of(script.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "fault", chosen(all_faults(), lambda fault: (fault.probes, fault.warns)), ids=lambda fault: fault.id
)
def test_a_faulty_script_is_found_by_a_probe_that_names_its_cause(fault: Fault, zoo_assets: Path) -> None:
    report = audit_text(fault.text(), zoo_assets, budget=fault.budget)
    assert "error" not in report, report["error"]
    failed = failed_probes(report)
    assert set(failed) == set(fault.probes), "\n".join(f"{probe}: {text}" for probe, text in failed.items())
    warned = probes_with("warn", report)
    assert set(fault.warns) <= set(warned), f"warned: {', '.join(warned)}"
    for text in (*failed.values(), *(warned[probe] for probe in fault.warns)):
        assert re.search(fault.cause, text), text


@pytest.mark.parametrize("fault", [each for each in all_faults() if each.warns], ids=lambda fault: fault.id)
def test_the_clean_twin_is_not_warned_of_the_fault(fault: Fault, zoo_assets: Path) -> None:
    report = audit_text((CLEAN / f"{fault.script}.py").read_text(encoding="utf-8"), zoo_assets, budget=fault.budget)
    same = {probe: text for probe, text in probes_with("warn", report).items() if probe in fault.warns}
    assert not [text for text in same.values() if re.search(fault.cause, text)]


@pytest.mark.parametrize("script", chosen(clean_scripts(), name_and_style), ids=lambda script: script.stem)
def test_no_clean_script_has_a_fail(script: Path, zoo_assets: Path) -> None:
    report = audit_text(script.read_text(encoding="utf-8"), zoo_assets)
    assert "error" not in report, report["error"]
    assert failed_probes(report) == {}
    assert [each for each in report["findings"] if INTERNAL in each["message"]] == []
