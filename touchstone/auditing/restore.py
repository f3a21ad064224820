"""Leave no trace: snapshot and restore everything that a probe could change."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from touchstone.auditing.subject import Subject


@contextmanager
def untouched(subject: Subject) -> Iterator[None]:
    """Restore random generators and training flags when the block ends."""
    import numpy as np
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    modes = [(module, module.training) for module in subject.model.modules()] if subject.model is not None else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)
        for module, mode in modes:
            module.training = mode
