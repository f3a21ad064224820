"""The order in which a loader draws its rows, read from a copy of its sampler."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.restore import _rewind as rewind


class _Indices:
    """A data set whose rows are their own indices."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> int:
        return int(index)


class Draws:
    """Draws indices from the sampler of a loader, on a copy of the sampler, without loading a row."""

    def __init__(self, loader: Any, *shared: Any, sets_epoch: bool = False) -> None:
        """Copy the sampler of a loader.

        Args:
            loader: the loader.
            shared: large objects that the sampler may refer to, and that are not copied.
            sets_epoch: call the sampler's `set_epoch`, although the loader does not do so by itself.
        """
        base = getattr(loader, "base_dataloader", loader)
        dataset: Any = getattr(base, "dataset", None)
        batch_sampler = getattr(base, "batch_sampler", None)
        if batch_sampler is None or not hasattr(dataset, "__len__"):
            raise NotChecked("the loader has no sampler: its data is a stream, or it is no DataLoader")
        kept = [dataset, loader, base, *shared]
        kept += [getattr(each, "dataset", None) for each in kept]
        memo = {id(each): each for each in kept if each is not None}
        self.length = len(dataset)
        self._batches, self._generator = copy.deepcopy((batch_sampler, getattr(base, "generator", None)), memo)
        self._sets_epoch = sets_epoch or hasattr(loader, "set_epoch")

    @property
    def sampler(self) -> Any:
        """The innermost sampler."""
        inner = self._batches
        while hasattr(inner, "batch_sampler"):
            inner = inner.batch_sampler
        return getattr(inner, "sampler", None) or inner

    def global_generators(self) -> list[Callable[[], object]]:
        """Return what puts back random generators that the sampler's code uses as global variables."""
        found = []
        for part in {type(self.sampler), type(self._batches)}:
            function = getattr(part, "__iter__", None)
            code = getattr(function, "__code__", None)
            for name in code.co_names if code is not None else ():
                value = getattr(function, "__globals__", {}).get(name)
                if hasattr(value, "bit_generator") or type(value).__name__ in ("Random", "Generator", "RandomState"):
                    found.append(rewind(value))
        return found

    def epoch(self, number: int) -> list[int]:
        """Return the indices of one epoch. Epochs are drawn one after the other, from 0."""
        import torch

        if self._sets_epoch:  # as Trainer and accelerate do
            inner: Any = getattr(self._batches, "batch_sampler", None)
            parts: list[Any] = [
                self._batches,
                getattr(self._batches, "sampler", None),
                inner,
                getattr(inner, "sampler", None),
            ]
            for part in parts:
                if hasattr(part, "set_epoch"):
                    part.set_epoch(number)
        loader: Any = torch.utils.data.DataLoader(
            _Indices(self.length),  # type: ignore[arg-type]
            batch_sampler=self._batches,
            collate_fn=list,
            generator=self._generator,
        )
        return [index for batch in loader for index in batch]
