"""docs/audit.md holds what the code says, and its example runs."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import pytest

from touchstone.auditing.catalogue import PAGE, page
from touchstone.auditing.probe import PROBES
from touchstone.cli.audit import add_arguments


def test_the_list_of_probes_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert text == page(text), "run: python -m touchstone.auditing.catalogue"


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
