"""The environment of a pytest that a test starts: as a person's, whatever runs the test."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(**variables: str) -> dict[str, str]:
    """Without what pytest and its plugins say to their own processes: pytest-benchmark does nothing within xdist."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return plain | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
