"""What each test found out about an implementation, and the closing lines that sum it up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from touchstone.contract import NAMES
from touchstone.properties.failure import KINDS, Kind, short

Status = Literal["holds", "fails", "not offered", "undecided", "skipped"]

HEADINGS: dict[Kind, str] = {"result": "results", "refusal": "refusals", "form": "form"}
FAILS: dict[Kind, str] = {"result": "wrong", "refusal": "not refused", "form": "not so"}


@dataclass(frozen=True)
class Outcome:
    """What one test of a check found out.

    Attributes:
        id: the check's number.
        kind: what the test is about or, if it fails, what its most important failure is about.
        reason: why it is not offered, undecided or skipped; of a failure, the rule, and a line that repeats the call.
        repeats: ids of the checks whose exception was met again. Such examples were not judged.
        known: a reason why it is known to fail, from a file of known failures.
    """

    id: str
    kind: Kind
    status: Status
    reason: str = ""
    repeats: tuple[str, ...] = ()
    known: str = ""


class Summary:
    """The outcomes of a session on one implementation."""

    def __init__(self, outcomes: Iterable[Outcome], *, of: Sequence[str]) -> None:
        """Make a summary.

        Args:
            of: the ids of all checks, in the contract's order.
        """
        self.of = of
        self.outcomes = [each for each in outcomes if each.id in of]

    def ids(self, *statuses: Status, kind: Kind | None = None, known: bool | None = None) -> list[str]:
        """Return the checks with a test of this outcome, in the contract's order."""
        found = {
            each.id
            for each in self.outcomes
            if each.status in statuses and kind in (None, each.kind) and known in (None, bool(each.known))
        }
        return [id for id in self.of if id in found]

    @property
    def ran(self) -> list[str]:
        """The checks that all of their tests judged."""
        without = set(self.ids("not offered", "undecided", "skipped"))
        return [id for id in self.ids("holds", "fails") if id not in without]

    def failed(self, *, strict: bool) -> list[str]:
        """Return the checks that decide the exit code: wrong results; if `strict`, also refusals and form."""
        kinds = KINDS if strict else KINDS[:1]
        found = {id for kind in kinds for id in self.ids("fails", kind=kind, known=False)}
        return [id for id in self.of if id in found]

    def stale(self, known: Mapping[str, str]) -> list[str]:
        """Return the known failures that did not happen, though all tests of the check ran."""
        failing = set(self.ids("fails"))
        return [id for id in self.ran if id in known and id not in failing]

    def headline(self, name: str) -> str:
        """Return `contract: ran 36 of 182 checks on mypkg.adapters: 2 wrong results (A3, A10)`."""
        wrong = self.ids("fails", kind="result", known=False)
        found = f"{len(wrong)} wrong result{'s' * (len(wrong) != 1)} ({', '.join(wrong)})" if wrong else ""
        if not wrong and self.ids("holds", "fails"):
            found = "no wrong result"
        line = f"contract: ran {len(self.ran)} of {len(self.of)} checks on {name}"
        return f"{line}: {found}" if found else line

    def asides(self, *, most: int | None) -> Iterator[str]:
        """Yield what failed and does not count: each rule with a line to paste, at most `most` of them."""
        failing = [
            each for each in self.outcomes if each.status == "fails" and each.kind != "result" and not each.known
        ]
        for each in failing[:most]:
            rule, _, paste = each.reason.partition("\n")
            yield f"  {rule}"
            yield f"      {short(paste)}"
        if most is not None and len(failing) > most:
            yield f"  and {len(failing) - most} more; -v shows all"

    def details(
        self, *, strict: bool, known: Mapping[str, str], parts: Mapping[str, str], choices: Mapping[str, Any]
    ) -> Iterator[str]:
        """Yield the lines below the headline.

        Args:
            known: the reasons of known failures by check.
            parts: what functions support, by function, for those that do not support everything.
            choices: the declared conventions.
        """
        for kind in KINDS:
            holding, failing = self.ids("holds", kind=kind), self.ids("fails", kind=kind)
            judged = [id for id in self.of if id in {*holding, *failing}]
            if not judged:
                continue
            line = f"{len(judged) - len(failing)} of {len(judged)} hold"
            if failing:
                line += f"; {FAILS[kind]}: {', '.join(failing)}"
            if failing and kind != "result" and not strict:
                line += " (not counted; --strict-checks counts them)"
            yield _row(HEADINGS[kind], line)
        for function, part in parts.items():
            yield _row("in part", f"{function}: {part}")
        if choices:
            yield _row("choices", ", ".join(f"{name} {value}" for name, value in choices.items()))
        judged_somewhere = self.ids("holds", "fails")
        for id in self.ids("undecided", "skipped"):
            own = [each for each in self.outcomes if each.id == id and each.status in ("undecided", "skipped")]
            yield _row("not judged", f"{id}{' in part' * (id in judged_somewhere)}: {own[0].reason}")
        repeated: dict[tuple[str, ...], list[str]] = {}
        for each in self.outcomes:
            if each.repeats and each.status in ("holds", "fails"):
                ids = repeated.setdefault(each.repeats, [])
                ids += [each.id] if each.id not in ids else []
        for causes, ids in repeated.items():
            yield _row(
                "exceptions", f"inputs that raise as {', '.join(causes)} reports were left out of {', '.join(ids)}"
            )
        for id in self.ids("fails", known=True):
            yield _row("known", f"{id}: {known[id]}")
        for id in self.stale(known):
            yield _row("known", f"{id} is listed as a known failure and holds: remove it from the file")
        never = [id for id in known if id not in self.of]
        for id in never:
            yield _row("known", f"{id} is no check of docs/contract.md")
        if absent := self.ids("not offered"):
            names = {name for each in self.outcomes if each.status == "not offered" for name in each.reason.split(", ")}
            missing = [name for name in NAMES if name in names]
            more = f", ... ({len(missing)} functions; -v names them)" if len(missing) > 4 else ""
            yield _row("not offered", f"{len(absent)} checks, for want of {', '.join(missing[:4])}{more}")
        unselected = len(self.of) - len({each.id for each in self.outcomes})
        if unselected:
            yield _row("not selected", f"{unselected} checks")


def _row(title: str, text: str) -> str:
    return f"  {title:<12} {text}"
