"""All checks on several implementations: which of them holds where, with the smallest example of each failure.

    matrix = conformance(["touchstone.suite.implementations.transformers", "my.stages"], examples=60)

Every implementation is examined in a process of its own, so that one that crashes or changes global state spoils no
other.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from touchstone.contract import NAMES
from touchstone.properties.check import all_checks, hypothesis_settings, ids, judge
from touchstone.properties.failure import Kind
from touchstone.properties.known import KnownError, known_failures
from touchstone.properties.outcome import Outcome, Summary
from touchstone.properties.subject import ImplementationError, load

SCHEMA = 1


@dataclass(frozen=True)
class Found:
    """What one test found out about one implementation.

    Attributes:
        test: the name of the test.
        sentence: its rule in words.
        report: of a failure, the whole report: input, expected and actual result.
        paste: of a failure, a line of Python that repeats the call.
    """

    outcome: Outcome
    test: str
    sentence: str
    report: str = ""
    paste: str = ""


@dataclass(frozen=True)
class Examined:
    """One implementation and the outcomes of all tests.

    Attributes:
        parts: what its functions support, for those that do not support everything.
        choices: the conventions that it declares.
        known: the reasons of its known failures, by check.
        problem: why it could not be examined; then there are no outcomes.
    """

    name: str
    functions: tuple[str, ...] = ()
    parts: Mapping[str, str] | None = None
    choices: Mapping[str, Any] | None = None
    known: Mapping[str, str] | None = None
    found: tuple[Found, ...] = ()
    problem: str = ""

    @property
    def summary(self) -> Summary:
        return Summary([each.outcome for each in self.found], of=ids())

    def failures(self, id: str | None = None, *, kind: Kind | None = None) -> list[Found]:
        """Return the failures of one check or of all, of one kind or of all."""
        return [
            each
            for each in self.found
            if each.outcome.status == "fails" and id in (None, each.outcome.id) and kind in (None, each.outcome.kind)
        ]


def conformance(
    names: Sequence[str],
    *,
    examples: int,
    shape: str = "",
    known_file: Path | None = None,
    jobs: int = 1,
    progress: Callable[[Examined], None] = lambda examined: None,
) -> list[Examined]:
    """Examine implementations with every check, and return them in the order given.

    Args:
        examples: examples per test, before they are divided by its cost.
        shape: what they are, if they offer no functions of the contract themselves (`shapes.SHAPES`).
        known_file: a file of known failures for all of these implementations; each may have its own beside it.
        jobs: processes at a time.
        progress: called with each implementation as soon as it is done.
    """

    def one(name: str) -> Examined:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            try:
                examined = process.submit(examine, name, examples=examples, shape=shape, known_file=known_file).result()
            except BrokenProcessPool:
                examined = Examined(name, problem=f"{name}: its process died, as from a crash or for want of memory")
        progress(examined)
        return examined

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, names))


def examine(name: str, *, examples: int, shape: str = "", known_file: Path | None = None) -> Examined:
    """Run every check on one implementation in this process."""
    try:
        subject = load(name, shape=shape)
        known = known_failures(subject.module, known_file)
    except (ImplementationError, KnownError) as error:
        return Examined(name, problem=str(error))
    found = []
    for check in all_checks():
        if missing := check.missing(subject):
            outcome = Outcome(check.id, check.kind, "not offered", ", ".join(missing))
            found.append(Found(outcome, check.name, check.sentence))
            continue
        test = check.test(hypothesis_settings(examples, shrink=True, derandomize=True))
        verdict = judge(check, subject, functools.partial(test, implementation=subject))
        if verdict.failures:
            first = verdict.failures[0]
            shown = f"{first.headline}\n{first.paste}"
            outcome = Outcome(check.id, first.kind, "fails", shown, verdict.repeated, known.get(check.id, ""))
            found.append(Found(outcome, check.name, check.sentence, str(first), first.paste))
        elif verdict.undecided:
            found.append(
                Found(Outcome(check.id, check.kind, "undecided", verdict.undecided), check.name, check.sentence)
            )
        else:
            outcome = Outcome(check.id, check.kind, "holds", repeats=verdict.repeated)
            found.append(Found(outcome, check.name, check.sentence))
    functions = tuple(stage for stage in NAMES if subject.offers(stage))
    return Examined(name, functions, subject.parts, dict(subject.domain.choices), dict(known), tuple(found))


def as_json(examined: Sequence[Examined]) -> dict[str, Any]:
    """Return the matrix as plain data: `{"schema", "checks", "implementations"}`."""
    implementations = []
    for each in examined:
        tests = [
            {**asdict(found.outcome), "test": found.test, "report": found.report, "paste": found.paste}
            for found in each.found
        ]
        facts = {"name": each.name, "functions": list(each.functions), "supports": each.parts, "choices": each.choices}
        implementations.append({**facts, "problem": each.problem, "tests": tests})
    return {"schema": SCHEMA, "checks": list(ids()), "implementations": implementations}
