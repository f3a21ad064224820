"""What an observed loop shows about its order of rows, and about padding in the calls of its metric."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.observing.trace import Trace
from touchstone.auditing.reading.order import Draws
from touchstone.auditing.subject import IGNORED

ENOUGH = 3
"""Fewer rows than these do not show an order."""
SCORERS = ("accuracy", "f1", "precision", "recall")
"""Metrics of class ids, which count -100 as a class."""


class LoopOrder:
    """Gives the order in which a loop draws its training rows, as observed or else drawn from a copy of its sampler."""

    def __init__(self, trace: Trace) -> None:
        self._passes = trace.training_passes()
        self._loader = trace.loaders[self._passes[0].loader]

    def __call__(self, epoch: int, seed: int | None = None, *, drawn_before: int = 0, again: bool = False) -> list[int]:
        """Return the indices of the rows of one epoch, in the order they are drawn. See `Subject.order`."""
        if seed is None:
            return self._observed(epoch)
        import numpy as np
        import torch

        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        shared: list[Any] = []
        try:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            for _ in range(drawn_before):
                random.random(), np.random.rand(), torch.rand(())
            draws = Draws(self._loader, sets_epoch=True)
            shared = draws.global_generators()
            return [draws.epoch(each) for each in range(epoch + 1)][-1]
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
            for put_back in shared:
                put_back()

    def _observed(self, epoch: int) -> list[int]:
        seen = [each for each in self._passes if each.loader == self._passes[0].loader]
        if epoch < len(seen) and seen[epoch].indices and seen[epoch].ended and not seen[epoch].shortened:
            return [index for batch in seen[epoch].indices for index in batch]
        draws = Draws(self._loader)
        return [draws.epoch(each) for each in range(epoch + 1)][-1]

    def beginnings(self) -> tuple[list[int], list[int]]:
        """Return the first rows of the first two epochs as they were observed, in equal numbers.

        Raises:
            NotChecked: only one epoch was seen.
        """
        seen = [
            [index for batch in each.indices for index in batch]
            for each in self._passes
            if each.loader == self._passes[0].loader and each.indices
        ]
        if len(seen) < 2:
            raise NotChecked("only one epoch was observed: --budget deep observes longer")
        count = min(len(seen[0]), len(seen[1]))
        return seen[0][:count], seen[1][:count]

    @property
    def sampler(self) -> Any:
        """The sampler of the training rows, for what it says of itself."""
        return Draws(self._loader).sampler


def order_of(trace: Trace) -> LoopOrder | None:
    """Return the order of the training rows of a loop, or None if it uses no loader with a sampler."""
    passes = trace.training_passes()
    if not passes or getattr(trace.loaders[passes[0].loader], "batch_sampler", None) is None:
        return None
    return LoopOrder(trace)


def evaluation_order(trace: Trace) -> tuple[list[int], int]:
    """Return the indices of the rows that the evaluation of a loop draws, and the number of rows there are."""
    training = {each.loader for each in trace.training_passes()}
    for forward in trace.evaluation_forwards():
        if forward.passing is None or trace.passes[forward.passing].loader in training:
            continue
        loader = trace.loaders[trace.passes[forward.passing].loader]
        return Draws(loader).epoch(0), len(loader.dataset)
    raise NotChecked("no evaluation over a loader of its own was observed")


# The metric


def counted_padding(trace: Trace) -> Finding:
    """Judge whether a metric of class ids is given -100 as a reference."""
    calls = [
        call for call in trace.metrics if any(name in call.name for name in SCORERS) and "seqeval" not in call.name
    ]
    looked = 0
    for call in calls:
        references = list(_ids(call.references))
        if not references:
            continue
        looked += 1
        ignored = Counter(references)[IGNORED]
        if ignored:
            return fail(
                f"{call.name} is given {ignored} of {len(references)} references that are -100",
                cause="positions without a label (special tokens, padding) are counted as errors: drop them from "
                f"predictions and references by a mask `labels != -100` ({call.where})",
                measured=ignored,
                expected=0,
            )
    if not looked:
        raise NotChecked("no call of a metric with class ids was observed")
    return passed(f"the references of {looked} calls of a metric hold no -100")


def _ids(values: Any) -> Iterator[int]:
    if hasattr(values, "tolist"):
        values = values.tolist()
    for value in values if isinstance(values, (list, tuple)) else ():
        if isinstance(value, int) and not isinstance(value, bool):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _ids(value)


def same_beginnings(order: LoopOrder) -> Finding:
    """Judge by the first rows of two observed epochs whether every epoch has another order."""
    first, second = order.beginnings()
    if len(first) < ENOUGH + 1:
        raise NotChecked(f"only {len(first)} rows of the second epoch were observed")
    if first != second:
        return passed(f"the first {len(first)} rows of two epochs differ")
    if first == sorted(first):
        return warn(
            "the rows are not shuffled: every epoch has the order of the data set",
            cause="the training loader is made without shuffle=True: shuffle it unless the order matters",
        )
    sampler = order.sampler
    cause = "the generator or seed is made anew for each epoch: keep one generator, or add the epoch to its seed"
    if hasattr(sampler, "set_epoch"):
        cause = "the sampler's set_epoch(epoch) is not called at the start of each epoch"
    return fail(
        f"the rows are shuffled, but the first {len(first)} rows of two epochs are the same",
        cause=f"{cause} ({type(sampler).__name__})",
        measured=second[:8],
        expected="another order in the second epoch",
    )
