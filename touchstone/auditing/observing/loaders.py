"""Record the passes over DataLoaders: which rows they draw, what they hand out, and whether they end early."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from touchstone.auditing.observing.observe import Replace
from touchstone.auditing.observing.trace import Pass

if TYPE_CHECKING:
    from touchstone.auditing.observing.record import Recorder


class Loaders:
    """The hooks of a recorder on DataLoaders."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def watch(self, replace: Replace) -> None:
        """Put the hooks into torch."""
        import torch.utils.data.dataloader as loading

        replace(loading.DataLoader, "__init__", self._make_loader)
        replace(loading.DataLoader, "__iter__", self._iterate)
        if hasattr(loading, "_BaseDataLoaderIter"):
            replace(loading._BaseDataLoaderIter, "_next_index", self._next_index)

    def _make_loader(self, original: Any) -> Any:
        recorder = self._recorder

        def __init__(loader: Any, *arguments: Any, **options: Any) -> None:
            original(loader, *arguments, **options)
            if recorder.ready:
                recorder.made.append(loader)

        return __init__

    def _iterate(self, original: Any) -> Any:
        recorder = self._recorder

        def __iter__(loader: Any) -> Any:
            kept = getattr(loader, "_iterator", None)
            if kept is not None:  # persistent workers keep one iterator for all epochs
                vars(kept)["touchstone_indices"] = []
            iterator = original(loader)
            if not recorder.ready:
                return iterator
            vars(iterator).setdefault("touchstone_indices", [])
            loaders = recorder.trace.loaders
            if not any(each is loader for each in loaders):
                loaders.append(loader)
            place = next(index for index, each in enumerate(loaders) if each is loader)
            return _Batches(iterator, loader, recorder, place)

        return __iter__

    def _next_index(self, original: Any) -> Any:
        recorder = self._recorder

        def _next_index(iterator: Any) -> Any:
            index = original(iterator)
            if (
                recorder.active
                and isinstance(index, (list, tuple))
                and all(hasattr(each, "__index__") for each in index)
            ):
                vars(iterator).setdefault("touchstone_indices", []).append([int(each) for each in index])
            return index

        return _next_index


class _Batches:
    """The iterator of a DataLoader, which notes what it hands out and may end early."""

    def __init__(self, iterator: Any, loader: Any, recorder: Recorder, place: int) -> None:
        self._iterator = iterator
        self._recorder = recorder
        try:
            self._length: int | None = len(loader)
        except TypeError:
            self._length = None
        self._index = len(recorder.trace.passes)
        recorder.trace.passes.append(
            Pass(place, indices=vars(iterator)["touchstone_indices"], step=len(recorder.trace.updates))
        )

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        recorder = self._recorder
        if not recorder.ready:
            return next(self._iterator)
        this = recorder.trace.passes[self._index]
        ending = recorder.ending
        if ending is not None and ending.ends_pass(recorder.trace, self._index, self._length):
            this.shortened = not this.ended
            raise StopIteration
        try:
            batch = next(self._iterator)
        except StopIteration:
            this.ended = True
            raise
        recorder.passing = self._index
        this.batches += 1
        return batch

    def __len__(self) -> int:
        return len(self._iterator)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)
