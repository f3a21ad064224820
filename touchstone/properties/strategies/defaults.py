"""Arguments left out, as most callers do."""

from __future__ import annotations

from typing import Any

DEFAULTS = {
    "strategy": "all",
    "scheme": "IOB2",
    "tail": "drop",
    "rate": 0.15,
    "replacement": (0.8, 0.1, 0.1),
    "side": "right",
    "multiple_of": None,
    "length": None,
    "mode": "strict",
    "label_length": None,
    "label_side": "right",
    "start_id": None,
    "remainder": "drop",
    "eos_id": None,
    "alpha": 1.0,
    "n_best": 20,
    "max_answer_length": 30,
    "null_threshold": 0.0,
    "first_position": 0,
}
"""What the signatures in docs/contract.md say."""


def without_defaults(arguments: dict[str, Any], *, brief: bool) -> dict[str, Any]:
    """The arguments; those that have their default value are left out of a `brief` call."""
    if not brief:
        return arguments
    return {name: value for name, value in arguments.items() if name not in DEFAULTS or value != DEFAULTS[name]}
