"""Watch a script while it runs: calls of `Dataset.map`, trainers, and what a loop does.

`Observer` replaces a few public functions of torch, datasets, transformers and accelerate while it is active, and puts
the originals back at the end. A library that the script imports later is patched when it is imported; one that it never
imports is never loaded.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import inspect
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from touchstone.auditing.observing.frames import caller
from touchstone.auditing.subject import MapCall

Replace = Callable[[Any, str, Callable[[Any], Any]], None]
"""`replace(owner, name, make)` sets an attribute to `make(original)` until the observation ends."""
Undo = list[Callable[[], None]]
Patches = Callable[[Replace, Undo], dict[str, Callable[[ModuleType], None]]]


class Observer:
    """Records what a script does.

    Args:
        patches: what else is done with a module as soon as it has been imported: for each observer of it, a function
            of `replace` and a list of functions that undo, which returns functions of the module by module name.

    Attributes:
        maps: the calls of `Dataset.map` and `IterableDataset.map`, in order.
        on_train: called with the trainer when `Trainer.train` is called.
        count: the number of observers that are active in this process.
    """

    count = 0

    def __init__(self, *patches: Patches) -> None:
        self.maps: list[MapCall] = []
        self.on_train: Callable[[Any], None] | None = None
        self._undo: list[Callable[[], None]] = []
        waiting: dict[str, list[Callable[[ModuleType], None]]] = {
            "datasets.arrow_dataset": [partial(self._patch_map, name="Dataset")],
            "datasets.iterable_dataset": [partial(self._patch_map, name="IterableDataset")],
            "transformers.trainer": [self._patch_trainer],
        }
        for each in patches:
            for name, patch in each(self.replace, self._undo).items():
                waiting.setdefault(name, []).append(patch)
        self._hook = _ImportHook(waiting)

    def __enter__(self) -> Observer:
        Observer.count += 1
        sys.meta_path.insert(0, self._hook)
        self._hook.patch_loaded()
        return self

    def __exit__(self, *_: object) -> None:
        Observer.count -= 1
        sys.meta_path.remove(self._hook)
        while self._undo:
            self._undo.pop()()

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace an attribute by `make(original)` until the observer ends."""
        original = inspect.getattr_static(owner, name)
        setattr(owner, name, functools.wraps(original)(make(original)))
        self._undo.append(lambda: setattr(owner, name, original))

    def _patch_map(self, module: ModuleType, name: str) -> None:
        def make(original: Any) -> Any:
            def map(dataset: Any, function: Any = None, *rest: Any, **options: Any) -> Any:
                where = caller()
                result = original(dataset, function, *rest, **options)
                bound = inspect.signature(original).bind(dataset, function, *rest, **options).arguments
                options = {key: value for key, value in bound.items() if key not in ("self", "function", "batched")}
                if function is not None:
                    self.maps.append(
                        MapCall(function, dataset, result, bool(bound.get("batched", False)), options, where)
                    )
                return result

            return map

        self.replace(getattr(module, name), "map", make)

    def _patch_trainer(self, module: ModuleType) -> None:
        def make(original: Any) -> Any:
            def train(trainer: Any, *arguments: Any, **options: Any) -> Any:
                if self.on_train is not None:
                    self.on_train(trainer)
                return original(trainer, *arguments, **options)

            return train

        self.replace(module.Trainer, "train", make)


class _ImportHook(importlib.abc.MetaPathFinder):
    """Calls functions with a module as soon as it has been imported."""

    def __init__(self, patches: dict[str, list[Callable[[ModuleType], None]]]) -> None:
        self._waiting = dict(patches)

    def patch_loaded(self) -> None:
        for name in [each for each in self._waiting if each in sys.modules]:
            for patch in self._waiting.pop(name):
                patch(sys.modules[name])

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in self._waiting:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader.exec_module = self._then_patch(name, spec.loader.exec_module)  # type: ignore[method-assign, assignment]
                return spec
        return None

    def _then_patch(self, name: str, execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
        """Execute a module and patch it. A spec may be found and never executed: datasets looks for torch like that."""

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for patch in self._waiting.pop(name, ()):
                patch(module)

        return exec_module
