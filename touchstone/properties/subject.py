"""The implementation under test: it is loaded by name, and every call of one of its functions is recorded."""

from __future__ import annotations

import importlib
import os
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

from touchstone.contract import NAMES
from touchstone.properties.failure import Call, Mismatch, Trace
from touchstone.properties.returns import shaped
from touchstone.properties.values import fresh, plain, spell_out

DEFAULT = "touchstone.stages"


class ImplementationError(Exception):
    """The name given as `--implementation` cannot be tested; the message says why and what to do."""


class Subject:
    """An implementation as the checks see it: `subject.align_labels(...)` records the call and returns plain values.

    The implementation gets copies of all arguments. Warnings that it raises are not shown.
    """

    def __init__(self, target: object, *, name: str, module: str = "", attribute: str = "") -> None:
        self.target = target
        self.name = name
        self.module = module
        self.attribute = attribute
        self.trace = Trace()

    @classmethod
    def of(cls, implementation: object) -> Subject:
        """Make a subject from a module, an object, or the name of either; a subject is returned unchanged."""
        if isinstance(implementation, Subject):
            return implementation
        if isinstance(implementation, str):
            return load(implementation)
        if isinstance(implementation, types.ModuleType):
            return cls(implementation, name=implementation.__name__, module=implementation.__name__)
        name = getattr(implementation, "__qualname__", type(implementation).__qualname__)
        return cls(implementation, name=name, attribute="implementation")

    def offers(self, stage: str) -> bool:
        """Return whether the implementation has a function of this name."""
        return callable(getattr(self.target, stage, None))

    @property
    def missing(self) -> tuple[str, ...]:
        """The functions of the contract that are not offered, in the contract's order."""
        return tuple(stage for stage in NAMES if not self.offers(stage))

    def remark(self, **remarks: object) -> None:
        """Keep remarks on the current example; a failure shows them above its input."""
        self.trace.remarks.update({name: str(text) for name, text in remarks.items()})

    def __getattr__(self, stage: str) -> Callable[..., Any]:
        if stage not in NAMES:
            raise AttributeError(stage)

        def call(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            return shaped(stage, plain(self.raw(stage, *args, **kwargs)))

        return call

    def raw(self, stage: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function with copies of the arguments and return its result unchanged."""
        __tracebackhide__ = True
        return self.record(stage, args, kwargs, hand_over=fresh)

    def record(
        self, stage: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, hand_over: Callable[[Any], Any]
    ) -> Any:
        """Call a function and record the call. `hand_over` maps each recorded argument to the one that is passed."""
        __tracebackhide__ = True
        call = Call(stage, args, kwargs)
        self.trace.calls.append(call)
        function = getattr(self.target, stage)
        handed = tuple(map(hand_over, args)), {name: hand_over(value) for name, value in kwargs.items()}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = function(*handed[0], **handed[1])
        except Exception as error:
            call.error = error
            raise ImplementationRaised(error) from error
        call.result = result
        return result

    def expect_refusal(self, stage: str, *args: Any, mentions: tuple[object, ...] = (), **kwargs: Any) -> None:
        """Require that the call raises a `ValueError` whose message contains `mentions` (an index, a value)."""
        __tracebackhide__ = True
        wanted = "a ValueError" + (f" whose message contains {' and '.join(map(str, mentions))}" if mentions else "")
        try:
            result = self.raw(stage, *args, **kwargs)
        except ImplementationRaised as raised:
            error = raised.error
            missing = [thing for thing in mentions if str(thing) not in str(error)]
            if not isinstance(error, ValueError) or missing:
                raise Mismatch(expected=wanted, came=f"{type(error).__name__}: {error}") from None
        else:
            raise Mismatch(expected=wanted, came=f"no error, but {spell_out(plain(result))}")


class ImplementationRaised(Exception):
    """The implementation raised an exception."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def load(name: str) -> Subject:
    """Load an implementation by name: `package.module`, `package.module:object` or `package.module.object`.

    Raises:
        ImplementationError: the name cannot be imported, or what it names offers no function of the contract.
    """
    module, _, attribute = name.partition(":")
    if module.endswith(".py") or "/" in module or not all(part.isidentifier() for part in module.split(".")):
        raise ImplementationError(
            f"{name!r} is not a module name: write package.module or package.module:object, with dots and no .py"
        )
    if os.getcwd() not in sys.path:  # pytest, unlike python -m pytest, leaves the working directory out
        sys.path.append(os.getcwd())
    try:
        target: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        parent, _, last = module.rpartition(".")
        missing = error.name or ""
        if missing == module and parent and not attribute:
            try:
                target = getattr(importlib.import_module(parent), last)
            except (ImportError, AttributeError):
                pass
            else:
                return _offering(Subject(target, name=name, module=parent, attribute=last))
        if module == missing or module.startswith(missing + "."):
            raise ImplementationError(
                f"no module named {missing!r}: run from the folder that holds it ({os.getcwd()} is searched), "
                f"install it, or add its folder to PYTHONPATH"
            ) from error
        raise ImplementationError(f"{module} needs {missing!r}, which is not installed: pip install it") from error
    except Exception as error:
        raise ImplementationError(
            f"importing {module} raised {type(error).__name__}: {error}; try python -c 'import {module}'"
        ) from error
    for part in attribute.split(".") if attribute else ():
        if not hasattr(target, part):
            raise ImplementationError(f"{module} has no attribute {attribute!r}: it has {_public(target)}")
        target = getattr(target, part)
    return _offering(Subject(target, name=name, module=module, attribute=attribute))


def _offering(subject: Subject) -> Subject:
    if len(subject.missing) == len(NAMES):
        raise ImplementationError(
            f"{subject.name} offers no function of the contract ({', '.join(NAMES[:8])}, ...; see docs/contract.md), "
            f"only {_public(subject.target)}"
        )
    return subject


def _public(target: object) -> str:
    names = [name for name in dir(target) if not name.startswith("_")]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or "nothing public"
