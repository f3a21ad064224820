"""Ways to train a pipeline. All reach the same metric; they differ in time."""

from __future__ import annotations

from reference.engines import loop, packed, trainer
from reference.engines.training import Engine

ENGINES: dict[str, Engine] = {"trainer": trainer.train, "loop": loop.train, "packed": packed.train}

__all__ = ["ENGINES", "Engine"]
