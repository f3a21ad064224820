"""What an implementation can be asked: the arguments that its functions take and the values that it supports.

An implementation may state what it supports:

    supports = {"scheme": ["IOB2"], "strategy": ["all"]}                     # for every function with such an argument
    supports = {"align_labels": {"names": lambda names: names[0] == "O"}}    # for one function; a test of the value

A function may also lack an argument of the contract: then it is asked only for what the contract's default means.
It may raise `NotImplementedError`. Examples outside the domain are not drawn, or are drawn again.

Where the field has more than one correct convention, it may declare its own (`contract.CHOICES`):

    choices = {"digits": 4, "ties": "any"}
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hypothesis
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from touchstone.contract import CHOICES, NAMES, signature
from touchstone.properties.values import plain

T = TypeVar("T")
Supported = Collection[Any] | Callable[[Any], bool]


class OutsideDomain(Exception):
    """A call asks for something that the implementation does not claim to do."""


class DomainError(Exception):
    """What an implementation states in `supports` or `choices` makes no sense; the message says what is wrong."""


@dataclass(frozen=True)
class Domain:
    """What each function of an implementation can be asked.

    Attributes:
        supports: per function and argument, the supported values, or a test of a value.
        lacks: per function, the arguments of the contract that it does not take.
        unusable: functions that the contract cannot call, with the reason.
        choices: the declared conventions that are not the contract's.
    """

    supports: Mapping[str, Mapping[str, Supported]] = field(default_factory=dict)
    lacks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, target: object) -> Domain:
        """Read the domain of an implementation: its attributes `supports` and `choices`, and its functions' signatures.

        Raises:
            DomainError: `supports` or `choices` is not a mapping, or names what the contract does not have.
        """
        supports = _supports(target)
        lacks: dict[str, list[str]] = {}
        unusable: dict[str, str] = {}
        for name in NAMES:
            function = getattr(target, name, None)
            if not callable(function):
                continue
            absent, foreign = _compare(function, name)
            blind = [each for each in absent if _default(name, each) is inspect.Parameter.empty]
            blind = [each for each in blind if each not in supports.get(name, {})]
            if foreign:
                unusable[name] = f"needs `{foreign[0]}`, which the contract does not pass"
            elif blind:
                unusable[name] = f"takes no `{blind[0]}`: say in `supports` for which values it is right without it"
            elif absent:
                lacks[name] = absent
        return cls(supports, lacks, unusable, _choices(target))

    def arguments(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments that the function takes, of those that the contract passes.

        Args:
            args: the arguments that are passed by position.

        Raises:
            OutsideDomain: a value is not supported, or the function lacks an argument that is not at its default.
        """
        lacks, supports = self.lacks.get(name, ()), self.supports.get(name, {})
        given = {**dict(zip(signature(name).parameters, args, strict=False)), **kwargs}
        for argument in supports:
            if not self.allows(name, argument, given.get(argument, _default(name, argument))):
                raise OutsideDomain(argument)
        for argument in lacks:
            given_other = argument in kwargs and plain(kwargs[argument]) != _default(name, argument)
            if given_other and argument not in supports:
                raise OutsideDomain(argument)
        return {argument: value for argument, value in kwargs.items() if argument not in lacks}

    def allows(self, name: str, argument: str, value: Any) -> bool:
        """Return whether a function supports a value of an argument."""
        values = self.supports.get(name, {}).get(argument)
        if values is not None:
            value = plain(value)
            return bool(values(value)) if callable(values) else value in [plain(each) for each in values]
        if argument in self.lacks.get(name, ()):
            return bool(plain(value) == _default(name, argument))
        return True

    def sentence(self, name: str) -> str:
        """Return what a function supports, such as `scheme IOB2 only, takes no sequence`; empty if everything."""
        supports = self.supports.get(name, {})
        parts = [
            f"some {argument} only"
            if callable(values) or not all(isinstance(each, str | int) for each in values)
            else f"{argument} {', '.join(map(str, values))} only"
            for argument, values in supports.items()
        ]
        parts += [f"takes no {each}" for each in self.lacks.get(name, ()) if each not in supports]
        return ", ".join(parts)


def _default(name: str, argument: str) -> Any:
    return signature(name).parameters[argument].default


def _supports(target: object) -> dict[str, dict[str, Supported]]:
    stated = getattr(target, "supports", {})
    if not isinstance(stated, Mapping):
        raise DomainError(f"supports is {type(stated).__name__}: write a dictionary of argument to supported values")
    found: dict[str, dict[str, Supported]] = {}
    for key, value in stated.items():
        if key in NAMES:
            if not isinstance(value, Mapping):
                raise DomainError(f"supports[{key!r}]: write a dictionary of argument to supported values")
            entries = [(key, argument, values) for argument, values in value.items()]
        else:
            entries = [(name, key, value) for name in NAMES if key in signature(name).parameters]
        if not entries or any(argument not in signature(name).parameters for name, argument, _ in entries):
            raise DomainError(f"supports[{key!r}]: no function or argument of docs/contract.md has this name")
        for name, argument, values in entries:
            if isinstance(values, str) or not (callable(values) or isinstance(values, Collection)):
                raise DomainError(f"supports[{key!r}]: write a list of values such as ['IOB2'], or a test of a value")
            found.setdefault(name, {})[argument] = values
    return found


def _choices(target: object) -> dict[str, Any]:
    stated = getattr(target, "choices", {})
    if not isinstance(stated, Mapping):
        raise DomainError(f"choices is {type(stated).__name__}: write a dictionary such as {{'digits': 4}}")
    known = {choice.name: choice for choice in CHOICES}
    for name, value in stated.items():
        if name not in known:
            raise DomainError(f"choices[{name!r}]: there is no such choice; there are {', '.join(known)}")
        choice = known[name]
        number = int in choice.others and type(value) is int and value >= 1
        if not number and value not in (choice.usual, *choice.others):
            words = " or ".join(
                "a number from 1" if each is int else repr(each) for each in (choice.usual, *choice.others)
            )
            raise DomainError(f"choices[{name!r}] is {value!r}: write {words} ({choice.says})")
    return {name: value for name, value in stated.items() if value != known[name].usual}


def _compare(function: Callable[..., Any], name: str) -> tuple[list[str], list[str]]:
    """Return the contract's arguments that a function does not take, and those that it needs beyond the contract's."""
    try:
        theirs = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin: nothing is known about it
        return [], []
    wanted = list(signature(name).parameters)[1:]
    kinds = inspect.Parameter
    if any(each.kind is kinds.VAR_KEYWORD for each in theirs):
        absent = []
    else:
        named = {each.name for each in theirs if each.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)}
        absent = [each for each in wanted if each not in named]
    positional = [each for each in theirs if each.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    rest = [each for each in theirs if each not in positional[:1]]
    needed = [each for each in rest if each.default is kinds.empty]
    needed = [each for each in needed if each.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)]
    return absent, [each.name for each in needed if each.name not in wanted]


# The functions under test ---------------------------------------------------------------------------------------------
#
# Strategies and checks ask here what the implementation under test supports, and which conventions it declares.

USUAL = {choice.name: choice.usual for choice in CHOICES}
_current: tuple[Domain, tuple[str, ...]] = (Domain(), ())


@contextlib.contextmanager
def within(domain: Domain, needs: tuple[str, ...]) -> Iterator[None]:
    """Let strategies draw what these functions support, and `choice` return what they declare."""
    global _current
    before, _current = _current, (domain, needs)
    try:
        yield
    finally:
        _current = before


def supported(argument: str, values: Sequence[T]) -> list[T]:
    """Return those of `values` that are supported as `argument` by the functions under test; all, if none is."""
    domain, needs = _current
    takers = [name for name in needs if argument in signature(name).parameters]
    return [each for each in values if all(domain.allows(name, argument, each) for name in takers)] or list(values)


@st.composite
def supported_values(draw: DrawFn, argument: str, values: Sequence[T]) -> T:
    """One of `values` that is supported as `argument` by the functions under test; any, if none is."""
    return draw(st.sampled_from(supported(argument, values)))


def stated_values(argument: str) -> list[Any]:
    """Return the values that the functions under test list as supported for an argument; none if they list none."""
    domain, needs = _current
    for name in needs:
        supported = domain.supports.get(name, {}).get(argument)
        if supported is not None and not callable(supported):
            return list(supported)
    return []


def choice(name: str) -> Any:
    """Return the convention that the implementation under test declares, or else the contract's."""
    return _current[0].choices.get(name, USUAL[name])


class Scores(dict[str, Any]):
    """The result of a scorer, which may lack a key. A test that reads a missing key draws another example.

    That a key is missing is reported once, by the check of the signature.
    """

    def __missing__(self, key: str) -> Any:
        hypothesis.reject()

    def present(self, *keys: str) -> list[str]:
        """Return those of the keys that the result has."""
        return [key for key in keys if key in self]


def rounding() -> float:
    """Return how far apart two scores, or the mean of scores, may be by the declared rounding; 0.0 without any."""
    digits = choice("digits")
    return 0.0 if digits is None else float(1.02 * 10.0**-digits)
