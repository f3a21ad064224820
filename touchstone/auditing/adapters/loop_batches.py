"""Name the parts of batches that a collator returns as a tuple, or under names of the script's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from touchstone.auditing.observing.trace import Trace
from touchstone.auditing.subject import IGNORED, Batch

if TYPE_CHECKING:
    from torch import Tensor

Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True)
class Part:
    """How an argument of the model is made of a part of the batch.

    Args:
        key: the part's place in a tuple, or its key in a dict.
        start: the first of its columns that is used.
        cut: columns that are left out, `start` of them at the left, the others at the right.
        hidden: the values that are replaced by -100, such as the padding id.
    """

    key: Any
    start: int = 0
    cut: int = 0
    hidden: tuple[int, ...] = ()

    def of(self, batch: Any) -> Any:
        """Return the argument."""
        value = batch[self.key]
        if self.cut:
            value = value[:, self.start : value.shape[1] - self.cut + self.start]
        for each in self.hidden:
            value = value.masked_fill(value == each, IGNORED)
        return value


class NamedBatches:
    """A collator that returns batches under the names by which the model received their parts.

    The names are learnt when they are needed first: the rows of an observed batch are collated again, and each argument
    of the model is looked up among the parts, also with -100 in place of padding, or moved by one place. A batch that
    has the usual names is returned as it is.

    Args:
        collate: the script's collator.
        dataset: the data that it collates.
        indices: the rows of one batch.
        received: what the model received of it.
    """

    def __init__(self, collate: Collate, dataset: Any, indices: Sequence[int], received: Batch) -> None:
        self.__wrapped__ = collate
        self._dataset, self._indices, self._received = dataset, indices, received

    def __call__(self, rows: list[Any]) -> Any:
        batch = self.__wrapped__(rows)
        if isinstance(batch, Mapping) and "input_ids" in batch:
            return batch
        parts = self._parts
        return {name: part.of(batch) for name, part in parts.items()} if "input_ids" in parts else batch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    @cached_property
    def _parts(self) -> dict[str, Part]:
        # Copies, because a collator may change its rows, and they may be those that the script keeps.
        batch = self.__wrapped__([copy.deepcopy(self._dataset[index]) for index in self._indices])
        if not isinstance(batch, (Mapping, list, tuple)):
            return {}
        pairs = list(batch.items()) if isinstance(batch, Mapping) else list(enumerate(batch))
        known = [(key, value.detach().cpu()) for key, value in pairs if hasattr(value, "detach")]
        found = {
            name: _found(known, value.detach().cpu())
            for name, value in self._received.items()
            if hasattr(value, "detach")
        }
        return {name: part for name, part in found.items() if part is not None}


def _found(parts: Sequence[tuple[Any, Tensor]], received: Tensor) -> Part | None:
    """Return what an argument was made of, or None."""
    for key, value in parts:
        if value.shape == received.shape and bool((value == received).all()):
            return Part(key)
    for key, value in parts:
        if value.dim() != 2 or received.dim() != 2 or len(value) != len(received) or value.is_floating_point():
            continue
        cut = value.shape[1] - received.shape[1]
        for start in (0, 1) if cut in (0, 1) else ():
            if start > cut:
                continue
            given = value[:, start : start + received.shape[1]]
            differ = given != received
            hidden, kept = set(given[differ].tolist()), set(given[~differ].tolist())
            if kept and bool((received[differ] == IGNORED).all()) and not hidden & kept:
                return Part(key, start, cut, tuple(hidden))
    return None


def named(collate: Collate | None, loader: Any, trace: Trace) -> Collate | None:
    """Return a collator whose batches have names, as far as what was observed tells them."""
    if collate is None:
        return None
    for number, each in enumerate(trace.passes):
        if trace.loaders[each.loader] is not loader or not each.indices:
            continue
        first = next((call for call in trace.forwards if call.passing == number and call.batch), None)
        if first is not None:
            return NamedBatches(collate, loader.dataset, each.indices[0], first.batch)
    return collate
