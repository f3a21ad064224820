"""Optional dependencies: the scorers that only `touchstone[suite]` installs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def suite_extra(function: str, package: str) -> Iterator[None]:
    """Turn a failed import within the block into an ImportError that says what to install.

    Args:
        function: what needs the package.
        package: the package's name on PyPI.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f'{function} needs {package}: run pip install "touchstone[suite]"') from error
