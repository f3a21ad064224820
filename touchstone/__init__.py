"""Touchstone: is this training pipeline correct, and is that score noise?

>>> import touchstone
>>> touchstone.stages.align_labels(
...     [0, 1], word_ids=[None, 0, 1, 1, None], names=["O", "B-PER", "I-PER"]
... )
[-100, 0, 1, 2, -100]

Records of training runs can be read and compared (see `touchstone.compare`):

>>> print(touchstone.compare("results/one-machine", "results/another"))  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from touchstone import stages
    from touchstone.auditing.audit import audit
    from touchstone.auditing.reporting.stored import read_report
    from touchstone.auditing.testcase import TrainerAudit
    from touchstone.auditing.watch import watch
    from touchstone.comparing.compare import compare
    from touchstone.records.record import Record, read_record, read_records

    __version__: str

__all__ = [
    "Record",
    "TrainerAudit",
    "__version__",
    "audit",
    "compare",
    "read_record",
    "read_records",
    "read_report",
    "stages",
    "watch",
]

_SOURCES = {
    "stages": "touchstone.stages",
    "audit": "touchstone.auditing.audit:audit",
    "watch": "touchstone.auditing.watch:watch",
    "read_report": "touchstone.auditing.reporting.stored:read_report",
    "TrainerAudit": "touchstone.auditing.testcase:TrainerAudit",
    "Record": "touchstone.records.record:Record",
    "read_record": "touchstone.records.record:read_record",
    "read_records": "touchstone.records.record:read_records",
    "compare": "touchstone.comparing.compare:compare",
}
"""Where each public name comes from: "module" or "module:attribute"."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import touchstone` imports neither torch nor NumPy."""
    value: Any
    if name == "__version__":
        value = _version()
    elif name in _SOURCES:
        module, _, attribute = _SOURCES[name].partition(":")
        value = importlib.import_module(module)
        if attribute:
            value = getattr(value, attribute)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """Return the version of the installed distribution, or "0+unknown" in a clone that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("touchstone")
    except PackageNotFoundError:
        return "0+unknown"
