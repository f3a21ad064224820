"""Text that comes from elsewhere and will be shown: one line, no control characters."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import StringConstraints

Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=2000)]
"""No control characters, which could rewrite the terminal it is shown on."""


def printable(text: str) -> str:
    """As a `Line`: control characters and line ends become spaces, and what is too long is cut."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).strip()[:2000]
