"""The report as one self-contained HTML page."""

from __future__ import annotations

from touchstone.auditing.finding import Report


def page(report: Report) -> str:
    """Return the report as a page."""
    raise NotImplementedError
