"""Find the user's code on the stack."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType

_OWN = str(Path(__file__).parents[1]) + os.sep
_STANDARD = os.path.dirname(os.__file__)


def is_user_code(path: str) -> bool:
    """Tell whether a file belongs neither to Touchstone, nor to an installed package, nor to the standard library."""
    return not (path.startswith((_OWN, "<frozen", _STANDARD)) or "site-packages" in path or "dist-packages" in path)


def caller() -> str:
    """Return `file:line` of the innermost frame of the user's code, or ""."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_user_code(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def user_frames() -> list[FrameType]:
    """Return the frames of the user's code, innermost first. Frames outside the script that `runpy` runs are none."""
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not (found and "runpy" in frame.f_code.co_filename):
        if is_user_code(frame.f_code.co_filename):
            found.append(frame)
        frame = frame.f_back
    return found
