"""Touchstone: is this training pipeline right, and is that score noise?

>>> import touchstone
>>> touchstone.stages.align_labels(
...     [0, 1], word_ids=[None, 0, 1, 1, None], names=["O", "B-PER", "I-PER"]
... )
[-100, 0, 1, 2, -100]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from touchstone import stages
    from touchstone.records.record import Record, read_record, read_records

__all__ = ["Record", "read_record", "read_records", "stages"]

_PLACES = {
    "stages": "touchstone.stages",
    "Record": "touchstone.records.record:Record",
    "read_record": "touchstone.records.record:read_record",
    "read_records": "touchstone.records.record:read_records",
}


def __getattr__(name: str) -> Any:
    """Each name is imported when it is first used: `import touchstone` does not import torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    found = importlib.import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
