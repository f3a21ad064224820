"""docs/zoo.md and its record belong to the zoo as it is."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import Any

import pytest

from tests.zoo import matrix, page, peers_page
from tests.zoo.__main__ import main
from tests.zoo.fault import all_faults, clean_scripts

with_all_faults = pytest.mark.skipif(
    version("transformers").startswith("4."), reason="the record has faults that exist only in transformers 5"
)


@with_all_faults
def test_the_record_lists_exactly_the_faults_and_clean_scripts_that_exist() -> None:
    record = matrix.load()
    assert sorted(record["faults"]) == sorted(fault.id for fault in all_faults())
    assert sorted(record["clean"]) == [script.stem for script in clean_scripts()]


@with_all_faults
def test_the_page_is_written_from_the_record() -> None:
    assert page.page(matrix.load()) == page.PAGE.read_text(encoding="utf-8")


def test_no_probe_of_the_zoo_is_unknown() -> None:
    from touchstone.auditing.probe import load_probes

    assert {probe for fault in all_faults() for probe in (*fault.probes, *fault.warns)} <= set(load_probes())


def test_every_fault_is_found_or_at_least_warned_of() -> None:
    assert [fault.id for fault in all_faults() if not fault.probes and not fault.warns] == []


def test_faults_have_unique_ids_and_every_edit_applies_once() -> None:
    ids = [fault.id for fault in all_faults()]
    assert len(ids) == len(set(ids))
    for fault in all_faults():
        fault.text()
        re.compile(fault.cause)


def test_show_prints_the_faulty_script(capsys: pytest.CaptureFixture[str]) -> None:
    fault = all_faults()[0]
    assert main(["show", fault.id]) == 0
    assert capsys.readouterr().out == fault.text()


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("trainer = Seq2SeqTrainer(model)", "Seq2SeqTrainer"),
        ("class Mine(Trainer):\n    pass\nMine(model)", "Trainer subclass"),
        ("class Mine(transformers.Trainer):\n    pass\nMine(model)", "Trainer subclass"),
        ("trainer = Trainer(model)", "Trainer"),
        ("accelerator = Accelerator()", "Accelerate loop"),
        ("loss.backward()", "plain loop"),
    ],
)
def test_the_style_of_a_script_is_how_it_trains(text: str, style: str) -> None:
    assert matrix.style_of(text) == style


@with_all_faults
def test_the_page_of_peers_is_written_from_its_record() -> None:
    assert peers_page.page(peers_record()) == peers_page.PAGE.read_text(encoding="utf-8")


@with_all_faults
def test_the_record_of_peers_names_only_scripts_that_exist() -> None:
    record = peers_record()
    assert set(record["faults"]) <= {fault.id for fault in all_faults()}
    assert set(record["clean"]) <= {script.stem for script in clean_scripts()}


def peers_record() -> dict[str, Any]:
    record: dict[str, Any] = json.loads(peers_page.RECORD.read_text(encoding="utf-8"))
    return record


def test_a_fault_that_only_a_warning_shows_is_listed_with_its_probe() -> None:
    fault = next(each for each in all_faults() if each.warns)
    entry = {"task": "causal-lm", "style": "plain loop", "fail": [], "pass": 9, "not-checked": 3, "seconds": 2.0}
    record = {
        "versions": {},
        "faults": {fault.id: {**entry, "warn": list(fault.warns), "cause_named": True}},
        "clean": {fault.script: {**entry, "warn": []}},
    }
    written = page.page(record)
    assert f"| `{fault.warns[0]}` warns | yes |" in written
    assert page.totals(record)["warned"] == 1
    assert page.totals(record)["explained"] == 0
