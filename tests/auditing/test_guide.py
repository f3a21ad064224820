"""docs/audit.md and docs/probes.md hold what the code says, and the example runs."""

from __future__ import annotations

import doctest
import inspect
import re
import shlex
from pathlib import Path

import pytest

from touchstone.auditing.catalogue import PAGE, PROBES_PAGE, page, probes_page
from touchstone.auditing.explain import HEADINGS, explained
from touchstone.auditing.probe import PROBES, Probe, load_probes
from touchstone.cli.audit import add_arguments


def test_the_list_of_probes_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert text == page(text), "run: python -m touchstone.auditing.catalogue"


def test_the_page_of_probes_is_current() -> None:
    text = PROBES_PAGE.read_text(encoding="utf-8")

    assert text == probes_page(), "run: python -m touchstone.auditing.catalogue"


@pytest.mark.parametrize("each", load_probes().values(), ids=lambda each: each.id)
def test_every_probe_says_what_its_findings_mean_and_what_to_do(each: Probe) -> None:
    fault, causes, remedy, warning = HEADINGS.values()
    found = explained(each)
    code = inspect.getsource(each.look)

    assert remedy in found
    assert (fault in found) == (causes in found)
    assert fault in found or warning in found
    assert "fail(" not in code or fault in found
    assert "warn(" not in code or warning in found
    for heading, text in found.items():
        assert 30 < len(text) < 700, heading
        assert text.endswith((".", "`")), heading
        assert text.count("`") % 2 == 0, heading


def test_a_probe_of_ones_own_may_say_nothing() -> None:
    assert explained("no-such-probe") == {}


def test_the_worked_example_runs_and_prints_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    before = dict(PROBES)
    try:
        result = doctest.testfile(str(PAGE), module_relative=False)
    finally:
        PROBES.clear()
        PROBES.update(before)

    assert result.attempted > 3
    assert result.failed == 0


def test_every_command_of_the_page_is_one_that_touchstone_takes() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    commands = re.findall(r"touchstone audit (.+)", PAGE.read_text(encoding="utf-8"))
    commands = [command.split("`")[0] for command in commands if command.startswith(("-", "train"))]

    assert len(commands) >= 4
    for command in commands:
        parser.parse_args(shlex.split(command))


def test_every_option_is_on_the_page() -> None:
    import argparse

    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    text = Path(PAGE).read_text(encoding="utf-8")

    for action in parser._actions:
        for option in action.option_strings:
            assert f"`{option}" in text, option
