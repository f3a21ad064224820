"""A copy of a model runs its own weights, however its forward was replaced."""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any

import pytest
import torch
from torch import nn

from touchstone.auditing.copies import copy_of
from touchstone.auditing.finding import NotChecked
from touchstone.auditing.subject import quiet


def closed(model: nn.Module) -> None:
    forward = model.forward

    @functools.wraps(forward)
    def twice(*arguments: Any, **options: Any) -> Any:
        return 2 * forward(*arguments, **options)

    model.forward = twice  # type: ignore[method-assign]


def bound(model: nn.Module) -> None:
    function = type(model).forward

    def twice(self: nn.Module, inputs: torch.Tensor) -> Any:
        return 2 * function(self, inputs)

    model.forward = types.MethodType(twice, model)  # type: ignore[method-assign]


def partial(model: nn.Module) -> None:
    def twice(module: nn.Module, inputs: torch.Tensor) -> Any:
        return 2 * type(module).forward(module, inputs)

    model.forward = functools.partial(twice, model)  # type: ignore[method-assign]


def closed_twice(model: nn.Module) -> None:
    closed(model)
    forward = model.forward
    model.forward = lambda inputs: forward(inputs) / 1  # type: ignore[method-assign]


@pytest.mark.parametrize("replace", [closed, bound, partial, closed_twice])
@pytest.mark.parametrize("make", [copy_of, quiet])
def test_the_copy_runs_its_own_weights(replace: Any, make: Any) -> None:
    inner = nn.Linear(3, 2)
    replace(inner)
    model = nn.Sequential(inner)
    inputs = torch.ones(1, 3)
    copied = make(model)
    expected = model(inputs)
    assert torch.equal(copied(inputs), expected)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert not copied(inputs).any()
    assert torch.equal(model(inputs), expected)


def test_a_wrapped_function_keeps_its_signature() -> None:
    model = nn.Linear(3, 2)
    closed(model)
    assert inspect.signature(copy_of(model).forward) == inspect.signature(nn.Linear(3, 2).forward)


def test_a_forward_that_reaches_the_model_through_another_object_is_not_checked() -> None:
    class Holder:
        def __init__(self, model: nn.Module) -> None:
            self.model = model

    model = nn.Linear(3, 2)
    holder = Holder(model)
    model.forward = lambda inputs: type(holder.model).forward(holder.model, inputs)  # type: ignore[method-assign]
    with pytest.raises(NotChecked, match=r"Holder\.model"):
        copy_of(model)
