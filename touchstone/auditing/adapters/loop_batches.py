"""Name the parts of batches that a collator returns as a tuple, or under names of the script's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from touchstone.auditing.observing.trace import Trace
from touchstone.auditing.subject import Batch

Collate = Callable[[list[Any]], Any]


class NamedBatches:
    """A collator that returns batches under the names by which the model received their parts.

    The names are learnt when they are needed first: the rows of an observed batch are collated again, and each argument
    of the model is looked up among the parts. A batch that has the usual names is returned as it is.

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
        keys = self._keys
        return {name: batch[key] for name, key in keys.items()} if "input_ids" in keys else batch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    @cached_property
    def _keys(self) -> dict[str, Any]:
        """The place or key in a collated batch of each argument of the model."""
        batch = self.__wrapped__([self._dataset[index] for index in self._indices])
        if not isinstance(batch, (Mapping, list, tuple)):
            return {}
        parts = list(batch.items()) if isinstance(batch, Mapping) else list(enumerate(batch))
        found = {
            name: next((key for key, part in parts if _same(part, value)), None)
            for name, value in self._received.items()
        }
        return {name: key for name, key in found.items() if key is not None}


def _same(part: Any, received: Any) -> bool:
    """Tell whether two values are tensors of the same numbers."""
    if not hasattr(part, "detach") or not hasattr(received, "detach") or part.shape != received.shape:
        return False
    return bool((part.detach().cpu() == received.detach().cpu()).all())


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
