"""Checks: Hypothesis tests with a number in the contract, run by pytest or by `run_check`.

    @check("A4", needs="align_labels", case=alignments())
    def test_no_continuation_token_opens_an_entity(implementation, case): ...

The decorator is the only place where a check gets its number. Its wording is in docs/contract.md.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.errors import Flaky, HypothesisException, Unsatisfiable
from hypothesis.strategies import SearchStrategy

from touchstone.contract import NAMES, check_key
from touchstone.properties.domain import within
from touchstone.properties.failure import KINDS, CheckFailed, Kind, Mismatch, Trace, calls_shown, compose, line_to_paste
from touchstone.properties.subject import ImplementationRaised, Subject

NOT_ABOUT_THE_TEST = [HealthCheck.too_slow, HealthCheck.filter_too_much]
"""Health checks that speak of the machine, and of an implementation that supports little."""

_registry: dict[tuple[str, str], Check] = {}

Test = TypeVar("Test", bound=Callable[..., None])


@dataclass(frozen=True)
class Check:
    """One test of one numbered check.

    Attributes:
        id: the check's number, such as `A4`. Several tests may share one.
        name: the name of the test.
        needs: the functions it calls. If the implementation lacks one, the test is not run.
        kind: what a failure of it is about, unless the failure itself says something else.
        cost: divides the number of examples (a statistical check makes thousands of draws in each).
        example: the test of one example.
        strategies: the Hypothesis strategy of each of its arguments.
    """

    id: str
    name: str
    needs: tuple[str, ...]
    kind: Kind
    cost: int
    example: Callable[..., None]
    strategies: dict[str, SearchStrategy[Any]]

    @property
    def sentence(self) -> str:
        """The name of the test as a sentence, in which functions keep their names."""
        sentence = self.name.removeprefix("test_").replace("_", " ")
        for name in sorted((name for name in self.needs if "_" in name), key=len):
            sentence = sentence.replace(name.replace("_", " "), name)
        return sentence

    @property
    def place(self) -> str:
        """The file and line of the test, such as `suite/properties/test_alignment.py:60`."""
        code = inspect.unwrap(self.example).__code__
        return f"suite/properties/{os.path.basename(code.co_filename)}:{code.co_firstlineno}"

    def missing(self, subject: Subject) -> tuple[str, ...]:
        """Return the functions that the test needs and the implementation does not offer."""
        return tuple(stage for stage in self.needs if not subject.offers(stage))

    def test(self, base: settings, *, seed: int | None = None) -> Callable[..., None]:
        """Return the Hypothesis test under the settings `base`, with the number of examples divided by `cost`."""
        examples = max(2, base.max_examples // self.cost)
        given = hypothesis.given(**self.strategies)(self.example)
        seeded = given if seed is None else hypothesis.seed(seed)(given)
        return settings(base, max_examples=examples)(seeded)


class NotOffered(Exception):
    """The implementation lacks a function that the check needs."""


def check(
    id: str, /, *, needs: str, kind: Kind = "result", cost: int = 1, **strategies: SearchStrategy[Any]
) -> Callable[[Test], Test]:
    """Register a test under its number.

    Args:
        id: a letter of `contract.SECTIONS` and a number. The numbers of a letter run from 1 without a gap.
        needs: names of functions of the contract, separated by blanks.
        kind: what a failure is about: a wrong result, invalid input that is not refused, or the form of a call.
        cost: divides the number of examples.
        strategies: the test is called with `implementation` (a `Subject`) and a value of each of these.

    Raises:
        ValueError: not the id of a check, a need that is not a function of the contract, or a test that is already
            registered under another id.
    """
    check_key(id)
    if unknown := [name for name in needs.split() if name not in NAMES]:
        raise ValueError(f"check {id} needs {unknown[0]!r}, which is not a function of docs/contract.md")

    def register(body: Test) -> Test:
        @functools.wraps(body)
        def example(implementation: Subject, *args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True
            _run_example(found, functools.partial(body, implementation, *args, **kwargs), implementation)

        example.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
        found = Check(id, body.__name__, tuple(needs.split()), kind, cost, example, strategies)
        # A module may be imported twice, as suite.X and as touchstone.suite.X: its last name identifies it.
        key = (body.__module__.rpartition(".")[2], body.__name__)
        if key in _registry and _registry[key].id != id:
            raise ValueError(f"{body.__name__} is already registered as {_registry[key].id}, and now as {id}")
        _registry[key] = found
        test = found.test(settings.default)  # type: ignore[arg-type]
        test.check = found  # type: ignore[attr-defined]
        return test  # type: ignore[return-value]

    return register


def _run_example(found: Check, body: Callable[[], None], subject: Subject) -> None:
    __tracebackhide__ = True
    subject.trace = Trace()
    cause: Hashable | None = None
    error: Exception | None = None
    try:
        body()
        return
    except Mismatch as mismatch:
        problem = mismatch
        kind = found.kind if mismatch.kind == "result" else mismatch.kind
    except ImplementationRaised as raised:
        error, cause, kind = raised.error, raised.cause, found.kind
        problem = Mismatch(expected="a result", came=f"{type(error).__name__}: {error}")
    except HypothesisException:  # says nothing about the implementation
        raise
    except Exception as ours:  # a missing column, rows of different lengths: not the form the contract describes
        if not subject.trace.calls:
            raise
        error, kind = ours, found.kind
        came = f"{subject.trace.calls[-1].outcome} ({type(ours).__name__} in the check: {ours})"
        problem = Mismatch(expected="a result of the contract's form", came=came)
    report = _compose(found, problem, subject)
    paste = line_to_paste(calls_shown(subject.trace), module=subject.module, attribute=subject.attribute)
    raise CheckFailed(f"{found.id}: {found.sentence}", report, kind=kind, cause=cause, paste=paste) from error


def _compose(found: Check, mismatch: Mismatch, subject: Subject) -> str:
    title = f"{found.id} failed for {subject.name}: {found.sentence}"
    report = compose(
        title=title, mismatch=mismatch, trace=subject.trace, module=subject.module, attribute=subject.attribute
    )
    return f"{report}\n\n  the rule is {found.id} of docs/contract.md, the check {found.place}"


MOST_FAILURES = 4
"""How many different failures of one test are looked for."""


@dataclass
class Verdict:
    """What one test found out about an implementation.

    Attributes:
        failures: the most important one first: wrong results, then exceptions, then the rest.
        undecided: why no example could be judged; empty if some were.
        repeated: ids of the checks that reported the exceptions met here.
    """

    failures: list[CheckFailed]
    undecided: str = ""
    repeated: tuple[str, ...] = ()


def judge(found: Check, subject: Subject, run: Callable[[], None]) -> Verdict:
    """Run a test until nothing new fails: behind an exception, or a call of a bad form, there may be a wrong result.

    An exception is reported by the first test that meets it. After that, examples that end in it are drawn again, in
    this test and in all later ones.

    Args:
        run: runs the Hypothesis test on the subject.
    """
    failures: list[CheckFailed] = []
    undecided = ""
    subject.met = set()
    with within(subject.domain, found.needs):
        while len(failures) < MOST_FAILURES:
            failure = _failure(run)
            if isinstance(failure, Unsatisfiable):
                undecided = "" if failures else _undecided(subject)
                break
            if failure is None:
                break
            failures.append(failure)
            if failure.cause is not None:
                subject.known[failure.cause] = found.id
            elif failure.kind == "form" != found.kind:
                subject.muted.add("form")
            else:
                break
    subject.muted.clear()
    own = {failure.cause for failure in failures}
    repeated = tuple(dict.fromkeys(subject.known[cause] for cause in subject.met if cause not in own))
    failures.sort(key=lambda failure: (KINDS.index(failure.kind), failure.cause is not None))
    return Verdict(failures, undecided, repeated)


def _failure(run: Callable[[], None]) -> CheckFailed | Unsatisfiable | None:
    try:
        run()
    except CheckFailed as failure:
        return failure
    except Flaky as flaky:
        return unrepeatable(flaky)
    except Unsatisfiable as nothing:
        return nothing
    return None


def _undecided(subject: Subject) -> str:
    if subject.met:
        ids = ", ".join(dict.fromkeys(subject.known[cause] for cause in subject.met))
        return f"every example ends in the exception that {ids} reports"
    return "every example is outside what the implementation supports"


def all_checks() -> tuple[Check, ...]:
    """Return every test of suite/properties/test_*.py, in the order of its check's number."""
    folder = importlib.import_module("touchstone.suite.properties")
    for module in sorted(found.name for found in pkgutil.iter_modules(folder.__path__)):
        if module.startswith("test_"):
            importlib.import_module(f"{folder.__name__}.{module}")
    return tuple(sorted(_registry.values(), key=lambda found: check_key(found.id)))


def ids() -> tuple[str, ...]:
    """Return the ids of all checks, in the contract's order."""
    return tuple(dict.fromkeys(found.id for found in all_checks()))


def checks_of(id: str) -> tuple[Check, ...]:
    """Return the tests of one check.

    Raises:
        ValueError: an id that no check has.
    """
    found = tuple(each for each in all_checks() if each.id == id)
    if not found:
        raise ValueError(f"no check {id!r} in docs/contract.md: the ids are {', '.join(ids())}")
    return found


def hypothesis_settings(max_examples: int, *, shrink: bool, derandomize: bool = False) -> settings:
    """Return settings under which neither the speed of the machine nor a database changes what is run.

    Args:
        shrink: search for the smallest failing example. Slower.
        derandomize: draw the same examples every time.
    """
    return settings(
        max_examples=max_examples,
        derandomize=derandomize,
        deadline=None,
        database=None,
        print_blob=False,  # the report has a line to paste that does not need Hypothesis
        phases=(Phase.explicit, Phase.generate, *((Phase.shrink,) if shrink else ())),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
        suppress_health_check=NOT_ABOUT_THE_TEST,
    )


def run_check(
    check: Check | str, implementation: object, *, seed: int = 7, max_examples: int = 50, shrink: bool = False
) -> None:
    """Run a check without pytest. The same seed gives the same examples.

    Args:
        check: one test, or the id of a check, of which all tests are run.
        implementation: a module, an object, or the name of either.
        seed: determines the examples.
        max_examples: examples per test, before they are divided by its cost.
        shrink: search for the smallest failing example, as pytest does. Slower.

    Raises:
        CheckFailed: the property does not hold.
        NotOffered: the implementation lacks a function that the check needs, or supports none of the examples.
    """
    subject = Subject.of(implementation)
    for each in checks_of(check) if isinstance(check, str) else (check,):
        if missing := each.missing(subject):
            raise NotOffered(f"{each.id} {each.sentence}: {subject.name} does not offer {', '.join(missing)}")
        base = hypothesis_settings(max_examples, shrink=shrink)
        test = functools.partial(each.test(base, seed=seed), implementation=subject)
        with within(subject.domain, each.needs):
            failure = _failure(test)
        if isinstance(failure, Unsatisfiable):
            raise NotOffered(f"{each.id} {each.sentence}: {_undecided(subject)}") from None
        if failure is not None:
            raise failure


def unrepeatable(flaky: Flaky) -> CheckFailed:
    """Return the report of a failure that did not happen again when the same call was repeated."""
    for error in getattr(flaky, "exceptions", ()):
        if isinstance(error, CheckFailed):
            extra = "It did not fail again with the same arguments: the implementation is not deterministic."
            return CheckFailed(error.headline, f"{error}\n\n  {extra}")
    return CheckFailed("a check", f"the implementation is not deterministic: {flaky}")
