"""Ways to train a pipeline. All reach the same metric; they differ in time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

from touchstone.engines.training import Engine

__all__ = ["ENGINES", "Engine"]


class _Engines(Mapping[str, Engine]):
    """Each is imported when it is first taken: who only asks for their names need not wait for what they train with."""

    _modules: ClassVar = {
        "trainer": "touchstone.engines.trainer",
        "loop": "touchstone.engines.loop",
        "packed": "touchstone.packed.engine",
    }

    def __getitem__(self, name: str) -> Engine:
        if name not in self:
            raise KeyError(name)
        engine: Engine = importlib.import_module(self._modules[name]).train
        return engine

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


ENGINES: Mapping[str, Engine] = _Engines()
"""The module of each has its name, and a function `train`."""
