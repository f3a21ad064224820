"""Libraries that print and draw progress bars, kept silent while an engine reports by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import datasets
from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers and datasets, errors only in transformers' log; as before afterwards."""
    verbosity = logging.get_verbosity()
    bars, data_bars = logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        if data_bars:
            datasets.enable_progress_bars()
