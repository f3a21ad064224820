"""The table of probes, and the function that runs them."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from touchstone.auditing.clock import Stopwatch
from touchstone.auditing.finding import Example, Finding, NotChecked, Report
from touchstone.auditing.restore import untouched
from touchstone.auditing.subject import TASKS, UNKNOWN, Subject

Budget = Literal["fast", "default", "deep"]
BUDGETS: dict[Budget, float] = {"fast": 10.0, "default": 60.0, "deep": 600.0}
"""Seconds that the probes of each budget may take. Probes that would start later are not checked."""
MODULES = (
    "batches",
    "masks",
    "collators",
    "tags",
    "subwords",
    "scheme",
    "words",
    "masked",
    "mask_choice",
    "shift",
    "documents",
    "completion",
    "targets",
    "pairing",
    "sources",
    "answers",
    "vocabulary",
    "padding_token",
    "checkpoint",
    "rows",
    "step",
    "training_loss",
    "optimizer",
    "optimizer_settings",
    "schedule",
    "mode",
    "evaluation",
    "metric",
    "generation",
    "leaks",
    "order",
    "workers",
    "cache",
    "loop",
    "loop_schedule",
    "loop_step",
    "loop_modes",
    "loop_data",
    "loop_reports",
)
"""The modules of `touchstone.auditing.probes`, in the order in which their probes run and are shown."""
Look = Callable[[Subject], Finding]
AnyLook = TypeVar("AnyLook", bound=Look)
INTERNAL = "the probe itself failed"


@dataclass(frozen=True)
class Probe:
    """One question about a training run.

    Args:
        id: its name in reports and options, such as `special-tokens-unlabelled`.
        group: the heading it is listed under.
        says: what holds when it passes, in one sentence.
        tasks: the tasks it applies to.
        budget: the smallest budget that includes it.
        look: the function. It takes a subject and returns a finding, or raises NotChecked.
        loops: True if it applies to observed loops only, False if it applies to anything but these, else None.
        in_loops: the same question with another look, for observed loops.
    """

    id: str
    group: str
    says: str
    tasks: tuple[str, ...]
    budget: Budget
    look: Look
    loops: bool | None = None
    in_loops: Probe | None = None

    def fitting(self, subject: Subject) -> Probe | None:
        """Return the probe with the look that fits a subject, or None if the probe does not apply to it."""
        looped = subject.trace is not None
        if looped and self.in_loops is not None:
            return self.in_loops
        return self if self.loops in (None, looped) else None


PROBES: dict[str, Probe] = {}
"""All probes by id. `load_probes` fills it."""


class UnknownProbe(Exception):
    """There is no probe with this id."""


def probe(
    id: str,
    *,
    group: str,
    says: str,
    tasks: Sequence[str] = (*TASKS, UNKNOWN),
    budget: Budget = "default",
    loops: bool | None = None,
) -> Callable[[AnyLook], AnyLook]:
    """Put a function into the table of probes.

    >>> @probe("demo", group="demo", says="Nothing is wrong.", budget="fast")
    ... def demo(subject):
    ...     return passed("nothing is wrong")  # doctest: +SKIP
    """

    def add(look: AnyLook) -> AnyLook:
        if id in PROBES:
            raise ValueError(f"two probes are called {id}")
        PROBES[id] = Probe(id, group, says, tuple(tasks), budget, look, loops)
        return look

    return add


def in_loops(
    of: Look, *, tasks: Sequence[str] | None = None, budget: Budget | None = None
) -> Callable[[AnyLook], AnyLook]:
    """Give a probe that does not apply to observed loops a second look, which does.

    Args:
        of: the probe's function. To name it, its module must have been imported, so that it is in the table.
        tasks: the tasks that the look applies to, if not those of the probe.
        budget: the smallest budget that includes the look, if not that of the probe.
    """

    def add(look: AnyLook) -> AnyLook:
        first = next((each for each in PROBES.values() if each.look is of), None)
        if first is None:
            raise ValueError(f"{of.__name__} is no probe")
        if first.loops is not False or first.in_loops is not None:
            raise ValueError(f"{first.id} has a look for loops already")
        second = replace(first, look=look, loops=True, tasks=tuple(tasks or first.tasks), budget=budget or first.budget)
        PROBES[first.id] = replace(first, in_loops=second)
        return look

    return add


def load_probes() -> dict[str, Probe]:
    """Import all modules of probes and return the table, in the order of `MODULES` and then that of a user's probes."""
    names = [f"touchstone.auditing.probes.{module}" for module in MODULES]
    for name in names:
        importlib.import_module(name)
    place = {name: index for index, name in enumerate(names)}

    def order(item: tuple[str, Probe]) -> tuple[int, int]:
        look = item[1].look
        own = look.__module__ in place
        return (place[look.__module__], look.__code__.co_firstlineno) if own else (len(names), 0)

    ordered = sorted(PROBES.items(), key=order)
    PROBES.clear()
    PROBES.update(ordered)
    return PROBES


def chosen_probes(task: str, ids: Iterable[str] | None = None, *, subject: Subject | None = None) -> list[Probe]:
    """Return the probes that apply to a task, or those with the given ids.

    Args:
        task: the task.
        ids: these probes, whatever they apply to.
        subject: return the looks that fit this subject, and leave out probes without one.

    Raises:
        UnknownProbe: there is no such id.
    """
    table = load_probes()
    if ids is not None:
        unknown = [each for each in ids if each not in table]
        if unknown:
            from difflib import get_close_matches

            close = get_close_matches(unknown[0], table, n=1)
            hint = f"did you mean {close[0]}?" if close else "--list prints all probes"
            raise UnknownProbe(f"{unknown[0]} is not a probe: {hint}")
        return [table[each] for each in ids]
    looks = table.values() if subject is None else filter(None, (each.fitting(subject) for each in table.values()))
    return [each for each in looks if task in each.tasks]


def run_probes(
    subject: Subject,
    *,
    budget: Budget = "default",
    ids: Iterable[str] | None = None,
    seconds: float | None = None,
    progress: Callable[[Probe, int, int], None] | None = None,
) -> Report:
    """Run the probes that apply to a subject, and return the report.

    Nothing of the subject is changed: `untouched` restores parameters, optimizer, random generators, samplers, flags
    and files after every probe.

    Args:
        budget: which probes run, and for how long.
        ids: run only these, whatever their budget.
        seconds: another time limit than the budget's.
        progress: called before each probe with the probe, its index and the number of probes.
    """
    probes = chosen_probes(subject.task, ids, subject=subject)
    limit = BUDGETS[budget] if seconds is None else seconds
    levels = list(BUDGETS)
    watch = Stopwatch()
    findings = []
    for index, each in enumerate(probes):
        if progress:
            progress(each, index, len(probes))
        if ids is None and levels.index(each.budget) > levels.index(budget):
            finding = Finding(each.id, "not-checked", f"needs --budget {each.budget}")
        elif ids is None and watch.seconds > limit:
            finding = Finding(each.id, "not-checked", f"the {limit:.0f} s of the budget were used up: --budget deep")
        else:
            finding = run_probe(each, subject)
        findings.append(finding)
    return Report(subject.name, subject.task, findings, batch=batch_tables(subject))


def run_probe(each: Probe, subject: Subject) -> Finding:
    """Run the look of a probe that fits the subject. An error inside the probe or the user's code is `not-checked`."""
    each = each.fitting(subject) or each
    with untouched(subject):
        try:
            finding = replace(each.look(subject), probe=each.id)
        except NotChecked as reason:
            finding = Finding(each.id, "not-checked", str(reason))
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            finding = Finding(
                each.id,
                "not-checked",
                f"{INTERNAL}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                cause=f"raised at {at.filename}:{at.lineno} in {at.name}",
            )
    if finding.outcome in ("fail", "warn") and not finding.repro:
        finding = replace(finding, repro=subject.repro.replace("{probe}", each.id))
    return finding


def batch_tables(subject: Subject) -> tuple[Example, ...]:
    """Return the first rows of a training batch as tables of tokens, labels and what the loss sees."""
    from touchstone.auditing.reporting.batch import tables

    try:
        with untouched(subject):
            return tuple(tables(subject))
    except Exception:
        return ()
