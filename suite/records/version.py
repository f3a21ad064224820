"""Which version of the suite this is."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from suite.text import Line


class SuiteVersion(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Line
    commit: Line | None
    dirty: bool | None
    """Whether the working tree had changes that no commit has; None where there is no repository."""


def suite_version(root: Path | None = None) -> SuiteVersion:
    """The version of the suite, and the commit of its own repository where it runs from one."""
    root = Path(__file__).parents[2] if root is None else root
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    # Records themselves are written while a suite runs; they are results, not the code that made them.
    status = _git(root, "status", "--porcelain", "--", ":!results") if commit else None
    try:
        number = version("touchstone")
    except PackageNotFoundError:
        number = "not installed"
    return SuiteVersion(version=number, commit=commit, dirty=None if status is None else bool(status))


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
