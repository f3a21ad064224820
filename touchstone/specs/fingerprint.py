"""The hash that names what was measured: two runs with different hashes are not comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

MEASURED = ("task", "data", "checkpoint", "options", "recipe")
"""What a spec's hash is of, with the user's `overrides` where there are any. Not among it: the profile's and the
variant's names, the evaluation's batch size, the timeout, the expectation: none of them may change a metric."""


def measured_hash(resolved: Mapping[str, Any]) -> str:
    """sha256 (64 hex digits) of what is measured, defaults spelt out, from a spec as plain JSON values.

    Keys in any order and `3` for `3.0` give the same hash, so that it survives any JSON or TOML writer.

    Raises:
        ValueError: a part is missing, or a number is not finite.
    """
    if missing := [key for key in MEASURED if key not in resolved]:
        raise ValueError(f"the spec lacks {', '.join(missing)}")
    measured = {key: resolved[key] for key in MEASURED}
    if overrides := resolved.get("overrides"):  # absent and empty are alike
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
