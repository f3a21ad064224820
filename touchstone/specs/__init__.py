"""Specs (TOML: what is trained), expectations (JSON: what it should score) and verdicts.

The hash of a spec is defined here, where the readers of records find it without importing torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

MEASURED = ("task", "data", "checkpoint", "options", "recipe")
"""The parts of a spec that its hash covers, besides the user's `overrides` if there are any. The names of profile and
variant, the evaluation's batch size, the timeout and the expectation are left out: they must not change a metric."""


def measured_hash(resolved: Mapping[str, Any]) -> str:
    """Return the SHA-256 (64 hex digits) of what a spec measures. Runs with different hashes are not comparable.

    The order of keys does not matter, and `3` and `3.0` give the same hash, so that it survives any JSON or TOML
    writer.

    Args:
        resolved: the spec as plain JSON values, with all defaults filled in.

    Raises:
        ValueError: a part is missing, or a number is not finite.
    """
    if missing := [key for key in MEASURED if key not in resolved]:
        raise ValueError(f"the spec lacks {', '.join(missing)}")
    measured = {key: resolved[key] for key in MEASURED}
    if overrides := resolved.get("overrides"):  # a missing and an empty table give the same hash
        measured["overrides"] = overrides
    text = json.dumps(_canonical(measured), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _canonical(item) for key, item in value.items()}
        case list() | tuple():
            return [_canonical(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value
