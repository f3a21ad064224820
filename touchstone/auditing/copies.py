"""Copy a model whose `forward` was replaced on the instance, so that the copy runs its own weights."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from touchstone.auditing.finding import NotChecked

if TYPE_CHECKING:
    from torch import nn


def copy_of(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model.

    `copy.deepcopy` does not copy functions. A `forward` that is an attribute of a module, and a closure around the
    original one (as trl and Accelerate make it), would run the original's weights. It is made anew around the copy.

    Raises:
        NotChecked: the function reaches the model through another object.
    """
    copied = copy.deepcopy(model)
    pairs = list(zip(model.modules(), copied.modules(), strict=True))
    if any("forward" in vars(module) for module, _ in pairs):
        copies = {id(module): other for module, other in pairs}
        for module, other in pairs:
            if "forward" in vars(module):
                vars(other)["forward"] = _rebound(vars(module)["forward"], copies, {})
    return copied


def _rebound(value: Any, copies: Mapping[int, nn.Module], made: dict[int, Any]) -> Any:
    """Return a function with the modules that it holds replaced by their copies; other values are returned as is."""
    if id(value) in copies:
        return copies[id(value)]
    if id(value) in made:
        return made[id(value)]
    if isinstance(value, types.MethodType):
        return types.MethodType(_rebound(value.__func__, copies, made), _rebound(value.__self__, copies, made))
    if isinstance(value, functools.partial):
        arguments = [_rebound(each, copies, made) for each in value.args]
        options = {key: _rebound(each, copies, made) for key, each in value.keywords.items()}
        return functools.partial(_rebound(value.func, copies, made), *arguments, **options)
    if not isinstance(value, types.FunctionType):
        held = {} if isinstance(value, (type, types.ModuleType)) else getattr(value, "__dict__", {})
        if name := next((name for name, each in held.items() if id(each) in copies), None):
            raise NotChecked(
                f"model.forward was replaced by a function that reaches the model as {type(value).__name__}.{name}: "
                "a copy would run the weights of the original"
            )
        return value
    if not (value.__closure__ or vars(value)):
        return value
    cells = tuple(types.CellType() for _ in value.__closure__ or ())
    function = types.FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells or None)
    made[id(value)] = function
    function.__kwdefaults__ = value.__kwdefaults__
    function.__doc__, function.__qualname__, function.__module__ = value.__doc__, value.__qualname__, value.__module__
    function.__annotations__ = dict(value.__annotations__)
    for name, each in vars(value).items():
        setattr(function, name, _rebound(each, copies, made))
    for cell, old in zip(cells, value.__closure__ or (), strict=True):
        try:
            held = old.cell_contents
        except ValueError:  # an empty cell stays empty
            continue
        cell.cell_contents = _rebound(held, copies, made)
    return function
