"""The result of an audit: one finding per probe, and a report of all findings."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from touchstone.files import RecordError, write_atomically

Outcome = Literal["pass", "warn", "fail", "not-checked"]
OUTCOMES: tuple[Outcome, ...] = ("fail", "warn", "pass", "not-checked")
SCHEMA = "touchstone.audit/1"


class AuditFailed(AssertionError):
    """The audit proved at least one fault."""


class NotChecked(Exception):
    """A probe cannot look at its object. The message gives the reason and what the user can do."""


@dataclass(frozen=True)
class Example:
    """A small table that shows a finding on real data, such as the tokens and labels of one row.

    Args:
        columns: the headings.
        rows: the cells, as text, numbers or None.
        marked: the indices of the rows the finding is about.
        caption: where the rows come from, such as "row 3 of the training set".

    >>> Example(("token", "label"), [("[CLS]", "B-PER"), ("Ada", "B-PER")], marked=(0,)).columns
    ('token', 'label')
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    marked: Sequence[int] = ()
    caption: str = ""


@dataclass(frozen=True)
class Finding:
    """The result of one probe.

    Args:
        probe: the probe's id.
        outcome: `pass`, `warn` (a suspicion, or a known effect with its size), `fail` (a proved fault) or
            `not-checked`.
        message: one sentence: what was seen, or why it could not be looked at.
        cause: why it is so, with figures, the line of the user's code or the upstream thread, and what to change.
        measured: the figure that was measured, in a form that JSON can hold.
        expected: the figure that was expected.
        example: the data concerned, decoded and aligned.
        repro: lines of Python or shell that show the finding again.
        ignored: the user's reason for ignoring a `fail` or `warn`. An ignored finding is shown, but does not count.
    """

    probe: str
    outcome: Outcome
    message: str
    cause: str = ""
    measured: Any = None
    expected: Any = None
    example: Example | None = None
    repro: str = ""
    ignored: str = ""


def passed(message: str, **parts: Any) -> Finding:
    """Return a finding that nothing is wrong. The runner fills in the probe's id."""
    return Finding("", "pass", message, **parts)


def warn(message: str, **parts: Any) -> Finding:
    """Return a finding that something is suspicious, or has a known effect whose size is given."""
    return Finding("", "warn", message, **parts)


def fail(message: str, *, cause: str, **parts: Any) -> Finding:
    """Return a finding that a fault is proved. The cause says what to change."""
    return Finding("", "fail", message, cause, **parts)


@dataclass(frozen=True)
class Report:
    """All findings of one audit. It prints as a table, and shows as HTML in a notebook.

    Args:
        subject: what was audited, such as a script's path or a class name.
        task: the task that was detected or given; `unknown` if the head is none of the six.
        findings: one per probe that applies to the task.
        batch: tables of the batch as the model receives it, for the page.
    """

    subject: str
    task: str
    findings: Sequence[Finding]
    batch: Sequence[Example] = field(default=())

    @property
    def of(self) -> int:
        """The number of probes that apply."""
        return len(self.findings)

    @property
    def ran(self) -> int:
        """The number of probes that came to a result."""
        return sum(finding.outcome != "not-checked" for finding in self.findings)

    @property
    def counts(self) -> dict[Outcome, int]:
        """The number of findings by outcome, without those that the user ignores."""
        counted = Counter(finding.outcome for finding in self.findings if not finding.ignored)
        return {outcome: counted[outcome] for outcome in OUTCOMES}

    @property
    def verdict(self) -> str:
        """The counts in words, such as "2 faults, 1 warning, 27 passed, 3 not checked"."""
        counts = self.counts
        words = [_count(counts["fail"], "fault") if counts["fail"] else "no fault"]
        if counts["warn"]:
            words.append(_count(counts["warn"], "warning"))
        if counts["pass"]:
            words.append(f"{counts['pass']} passed")
        if ignored := len(self.ignored()):
            words.append(f"{ignored} ignored")
        if counts["not-checked"]:
            words.append(f"{counts['not-checked']} not checked")
        return ", ".join(words) if self.ran else f"nothing could be judged: {counts['not-checked']} not checked"

    @property
    def exit_code(self) -> int:
        """0: nothing is wrong; 1: a fault is proved; 2: no probe could judge."""
        if self.counts["fail"]:
            return 1
        return 0 if self.ran else 2

    def failures(self) -> list[Finding]:
        """Return the findings whose fault is proved, without those that the user ignores."""
        return self.with_outcome("fail")

    def with_outcome(self, outcome: Outcome) -> list[Finding]:
        """Return the findings with an outcome, without those that the user ignores."""
        return [finding for finding in self.findings if finding.outcome == outcome and not finding.ignored]

    def ignored(self) -> list[Finding]:
        """Return the findings that the user ignores."""
        return [finding for finding in self.findings if finding.ignored]

    def ignoring(self, reasons: Mapping[str, str]) -> Report:
        """Return the report with the `fail` and `warn` findings of some probes marked as ignored.

        Args:
            reasons: why each is ignored, by the probe's id.

        Raises:
            ValueError: a reason is empty.
        """
        if empty := [probe for probe, reason in reasons.items() if not reason.strip()]:
            raise ValueError(f"{empty[0]} is ignored without a reason: say why, so that others can judge it")
        findings = [
            replace(finding, ignored=reasons[finding.probe].strip())
            if finding.probe in reasons and finding.outcome in ("fail", "warn")
            else finding
            for finding in self.findings
        ]
        return replace(self, findings=findings)

    def raise_if_failed(self) -> None:
        """Raise AuditFailed if a fault is proved."""
        failures = self.failures()
        if failures:
            raise AuditFailed("\n".join(f"{each.probe}: {each.message}. {each.cause}" for each in failures))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as it is written to JSON."""
        return {
            "schema": SCHEMA,
            "subject": self.subject,
            "task": self.task,
            "ran": self.ran,
            "of": self.of,
            "findings": [_entry(finding) for finding in self.findings],
        }

    def save(self, path: str | Path) -> None:
        """Write the report as JSON. The file is complete or absent.

        Raises:
            RecordError: the file cannot be written.
        """
        _write(Path(path), json_text(self) + "\n")

    def html(self) -> str:
        """Return the report as one self-contained page."""
        from touchstone.auditing.reporting.page import page

        return page(self)

    def save_html(self, path: str | Path) -> None:
        """Write the report as one self-contained page. The file is complete or absent.

        Raises:
            RecordError: the file cannot be written.
        """
        _write(Path(path), self.html())

    def _repr_html_(self) -> str:
        from touchstone.auditing.reporting.page import fragment

        return fragment(self)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        from touchstone.auditing.reporting.table import as_text

        return as_text(self)

    def __rich__(self) -> Any:
        from touchstone.auditing.reporting.table import as_table

        return as_table(self)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be written ({error.strerror}): free space or choose another folder"
        ) from error


def _entry(finding: Finding) -> dict[str, Any]:
    """Return a finding as it is written to JSON. `ignored` is there only if the finding is ignored."""
    example = finding.example
    entry = {
        "probe": finding.probe,
        "outcome": finding.outcome,
        "message": finding.message,
        "cause": finding.cause,
        "measured": finding.measured,
        "expected": finding.expected,
        "example": None
        if example is None
        else {
            "columns": example.columns,
            "rows": [[_cell(cell) for cell in row] for row in example.rows],
            "marked": sorted(int(each) for each in example.marked),
            "caption": example.caption,
        },
        "repro": finding.repro,
    }
    if finding.ignored:
        entry["ignored"] = finding.ignored
    plain = jsonable(entry)
    assert isinstance(plain, dict)
    return plain


def _cell(value: Any) -> Any:
    plain = jsonable(value)
    return str(plain) if isinstance(plain, (list, dict)) else plain


def jsonable(value: Any) -> Any:
    """Turn any value into one that JSON can hold: tensors and arrays become lists, non-finite floats strings."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {_utf8(str(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(item) for item in value), key=str)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _utf8(str(value))


def _utf8(text: str) -> str:
    """Replace lone surrogates, which no file can hold, by escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_text(report: Report) -> str:
    """Return the report as JSON text."""
    return json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
