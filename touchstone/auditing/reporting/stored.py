"""The JSON of a report: its schema, and reading it back.

python -m touchstone.auditing.reporting.stored > touchstone/auditing/reporting/report.schema.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator
from typing_extensions import Self

from touchstone.auditing.finding import SCHEMA, Example, Finding, Outcome, Report
from touchstone.fields import Count, FrozenModel, shown
from touchstone.files import RecordError, parse_json, read_bytes, schema_of


class StoredExample(FrozenModel):
    """A small table that shows a finding on real data. `marked` are the indices of the rows concerned."""

    columns: list[str]
    rows: list[list[str | int | float | bool | None]]
    marked: list[Count]
    caption: str


class StoredFinding(FrozenModel):
    """The result of one probe. `ignored` is the user's reason for ignoring it."""

    probe: str
    outcome: Outcome
    message: str
    cause: str
    measured: JsonValue
    expected: JsonValue
    example: StoredExample | None
    repro: str
    ignored: Annotated[str, Field(min_length=1)] | None = None


class StoredReport(FrozenModel):
    """All findings of one audit. `ran` of the `of` probes that apply came to a result."""

    schema_: Annotated[Literal["touchstone.audit/1"], Field(alias="schema")]
    subject: str
    task: str
    ran: Count
    of: Count
    findings: list[StoredFinding]

    @model_validator(mode="after")
    def _counts(self) -> Self:
        ran = sum(finding.outcome != "not-checked" for finding in self.findings)
        if (self.ran, self.of) != (ran, len(self.findings)):
            raise ValueError(f"ran {self.ran} of {self.of}, but the findings are {ran} of {len(self.findings)}")
        return self


def read_report(path: str | Path) -> Report:
    """Read a report that `Report.save` or `touchstone audit --json` wrote. Its tables of the batch are not stored.

    Raises:
        RecordError: no such file, not JSON, another schema version, an unknown or missing key, a wrong value.
    """
    path = Path(path)
    raw = read_bytes(path, kind="report")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: is not the JSON of a report: {error}") from error
    version = data.get("schema") if isinstance(data, dict) else None
    if version != SCHEMA:
        raise RecordError(f"{path}: schema = {shown(version)}: this version of Touchstone reads {SCHEMA}")
    stored = parse_json(StoredReport, raw, path=path)
    return Report(stored.subject, stored.task, [_finding(each) for each in stored.findings])


def _finding(stored: StoredFinding) -> Finding:
    entries: dict[str, Any] = {name: getattr(stored, name) for name in StoredFinding.model_fields}
    if stored.example is not None:
        entries["example"] = Example(**{name: getattr(stored.example, name) for name in StoredExample.model_fields})
    return Finding(**entries | {"ignored": stored.ignored or ""})


def json_schema() -> str:
    """Return the JSON Schema of a report, as the repository keeps it."""
    return schema_of(StoredReport)


if __name__ == "__main__":
    print(json_schema(), end="")
