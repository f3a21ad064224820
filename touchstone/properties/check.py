"""Checks: Hypothesis tests with a number in the contract, run by pytest or by `run_check`.

@check("A4", needs="align_labels", case=strategies.alignments())
def test_no_continuation_token_opens_an_entity(implementation, case): ...
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.errors import Flaky, HypothesisException
from hypothesis.strategies import SearchStrategy

from touchstone.properties.failure import CheckFailed, Mismatch, Trace, compose
from touchstone.properties.subject import ImplementationRaised, Subject

MODULES = (
    "test_alignment",
    "test_merging",
    "test_chunking",
    "test_masking",
    "test_masking_shares",
    "test_collation",
    "test_scoring",
    "test_perplexity",
    "test_seq2seq",
    "test_decoding",
    "test_bleu",
    "test_rouge",
    "test_causal",
    "test_windowing",
    "test_answer_positions",
    "test_spans",
    "test_squad",
    "test_packing",
)
ROWS = {
    "A": 16,
    "C": 12,
    "M": 14,
    "P": 9,
    "S": 12,
    "X": 4,
    "T": 15,
    "D": 8,
    "B": 9,
    "R": 15,
    "K": 18,
    "W": 13,
    "N": 11,
    "Q": 9,
    "F": 17,
}
IDS = tuple(f"{letter}{number}" for letter, count in ROWS.items() for number in range(1, count + 1))
"""The checks of docs/contract.md, in its order."""

_registry: dict[tuple[str, str], Check] = {}

Test = TypeVar("Test", bound=Callable[..., None])


@dataclass(frozen=True)
class Check:
    """One test of one numbered property.

    Attributes:
        id: its row in docs/contract.md. A row may have several tests.
        name: the test's name.
        needs: the stages it calls; where one is not offered the check is not run.
        cost: examples are divided by this (statistical checks see thousands of draws in each).
    """

    id: str
    name: str
    needs: tuple[str, ...]
    cost: int
    example: Callable[..., None]
    strategies: dict[str, SearchStrategy[Any]]

    @property
    def sentence(self) -> str:
        return self.name.removeprefix("test_").replace("_", " ")

    @property
    def place(self) -> str:
        """Where the check is written, such as `suite/properties/test_alignment.py:60`."""
        code = inspect.unwrap(self.example).__code__
        return f"suite/properties/{os.path.basename(code.co_filename)}:{code.co_firstlineno}"

    def missing(self, subject: Subject) -> tuple[str, ...]:
        return tuple(stage for stage in self.needs if not subject.offers(stage))

    def test(self, base: settings, *, seed: int | None = None) -> Callable[..., None]:
        """The Hypothesis test, under `base` with as many examples as the cost leaves."""
        examples = max(2, base.max_examples // self.cost)
        given = hypothesis.given(**self.strategies)(self.example)
        seeded = given if seed is None else hypothesis.seed(seed)(given)
        return settings(base, max_examples=examples)(seeded)


class NotOffered(Exception):
    """The implementation lacks a stage that the check needs."""


def check(id: str, /, *, needs: str, cost: int = 1, **strategies: SearchStrategy[Any]) -> Callable[[Test], Test]:
    """Registers a test under its number. `needs` are stages separated by blanks.

    The test is called with `implementation` (a `Subject`) and one keyword argument for each strategy.
    """

    def register(body: Test) -> Test:
        @functools.wraps(body)
        def example(implementation: Subject, *args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True
            _run_example(found, functools.partial(body, implementation, *args, **kwargs), implementation)

        example.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
        found = Check(id, body.__name__, tuple(needs.split()), cost, example, strategies)
        key = (
            body.__module__.rpartition(".")[2],
            body.__name__,
        )  # a clone has a module as suite.X and touchstone.suite.X
        if id not in IDS or (key in _registry and _registry[key].id != id):
            raise ValueError(f"{id} ({body.__name__}) is not a row of docs/contract.md, or is taken")
        _registry[key] = found
        test = found.test(settings.default)  # type: ignore[arg-type]
        test.check = found  # type: ignore[attr-defined]
        return test  # type: ignore[return-value]

    return register


def _run_example(found: Check, body: Callable[[], None], subject: Subject) -> None:
    __tracebackhide__ = True
    subject.trace = Trace()
    headline = f"{found.id}: {found.sentence}"
    cause: Exception | None = None
    try:
        body()
        return
    except Mismatch as mismatch:
        problem = mismatch
    except ImplementationRaised as raised:
        cause = raised.error
        problem = Mismatch(expected="a result", came=f"{type(cause).__name__}: {cause}")
    except HypothesisException:  # not about the implementation
        raise
    except Exception as error:  # a column that is missing, rows of different length: not what the contract says
        if not subject.trace.calls:
            raise
        cause = error
        came = f"{subject.trace.calls[-1].outcome} ({type(error).__name__} in the check: {error})"
        problem = Mismatch(expected="a result of the contract's form", came=came)
    raise CheckFailed(headline, _compose(found, problem, subject)) from cause


def _compose(found: Check, mismatch: Mismatch, subject: Subject) -> str:
    title = f"{found.id}: {found.sentence}: not so for {subject.name}"
    report = compose(
        title=title, mismatch=mismatch, trace=subject.trace, module=subject.module, attribute=subject.attribute
    )
    return f"{report}\n\n  the rule is {found.id} of docs/contract.md, the check {found.place}"


def all_checks() -> tuple[Check, ...]:
    """Every check, in the contract's order; a row with several tests comes several times."""
    for module in MODULES:
        importlib.import_module(f"touchstone.suite.properties.{module}")
    return tuple(sorted(_registry.values(), key=lambda found: IDS.index(found.id)))


def checks_of(id: str) -> tuple[Check, ...]:
    """The tests of one row.

    Raises:
        ValueError: no such row.
    """
    found = tuple(each for each in all_checks() if each.id == id)
    if not found:
        raise ValueError(f"no check {id!r} in docs/contract.md: the rows are {', '.join(IDS)}")
    return found


def run_check(
    check: Check | str, implementation: object, *, seed: int = 7, max_examples: int = 50, shrink: bool = False
) -> None:
    """Runs a check without pytest: the same seed gives the same examples.

    Args:
        check: a check, or the number of a row (all its tests run then).
        implementation: a module, an object, or the name of either.
        shrink: look for the smallest failing example (what pytest shows); slower.

    Raises:
        CheckFailed: the property does not hold.
        NotOffered: the implementation lacks a stage.
    """
    subject = Subject.of(implementation)
    for each in checks_of(check) if isinstance(check, str) else (check,):
        if missing := each.missing(subject):
            raise NotOffered(f"{each.id} {each.sentence}: {subject.name} does not offer {', '.join(missing)}")
        phases = (Phase.explicit, Phase.generate, *((Phase.shrink,) if shrink else ()))
        base = settings(
            max_examples=max_examples,
            deadline=None,
            database=None,
            phases=phases,
            verbosity=Verbosity.quiet,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow],
        )
        try:
            each.test(base, seed=seed)(implementation=subject)
        except Flaky as flaky:
            raise unrepeatable(flaky) from None


def unrepeatable(flaky: Flaky) -> CheckFailed:
    """A failure that did not come back when the same call was made again."""
    for error in getattr(flaky, "exceptions", ()):
        if isinstance(error, CheckFailed):
            extra = "It did not fail again with the same arguments: the implementation is not deterministic."
            return CheckFailed(error.headline, f"{error}\n\n  {extra}")
    return CheckFailed("a check", f"the implementation is not deterministic: {flaky}")
