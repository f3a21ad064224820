"""The worked examples in the docstrings of the package and of every stage."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import touchstone
from touchstone import contract, stages

MODULES = ["touchstone", *(f"touchstone.stages.{found.name}" for found in pkgutil.iter_modules(stages.__path__))]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_what_they_show(name: str) -> None:
    module = touchstone if name == "touchstone" else importlib.import_module(name)

    failed = doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed

    assert failed == 0, "the differences are printed above"


@pytest.mark.parametrize("stage", contract.STAGES, ids=lambda stage: stage.name)
def test_every_stage_has_an_example(stage: contract.Stage) -> None:
    examples = doctest.DocTestParser().get_examples(getattr(stages, stage.name).__doc__)

    assert any(f"{stage.name}(" in example.source for example in examples)


@pytest.mark.parametrize("stage", [stage for stage in contract.STAGES if stage.batched], ids=lambda stage: stage.name)
def test_every_batched_version_refers_to_its_plain_stage(stage: contract.Stage) -> None:
    assert f"`{stage.name}`" in getattr(stages, stage.batched).__doc__
