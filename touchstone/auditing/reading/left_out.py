"""Tell rows that a sampler leaves out by mistake from those that it leaves out on purpose."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

from touchstone.auditing.observing.frames import is_user_code
from touchstone.auditing.subject import IGNORED, Subject

CHANCE = 1e-6
"""Bound on the probability that a shuffled order leaves out the same rows each time, though it draws from all."""
COMPARED = 300
"""Rows that are compared with those left out."""
SEED = 101


def ends_left_out(subject: Subject, total: int) -> tuple[list[int], int] | None:
    """Return the first or last row, or both, if a shuffling sampler never draws them and nothing explains why.

    Nothing is returned if the rows that are drawn fill whole batches or the sampler rounds their number (the rest is
    dropped by hand), if the sampler holds the drawn rows as a list (the user has chosen them), or if a row that is
    left out is odd: it cannot be read, is shorter or longer than all others, has no label, or equals another row.

    Returns:
        the rows, and the number of epochs that were drawn, or None.
    """
    train = subject.need("train")
    count = 1 + math.ceil(math.log(1 / CHANCE) / math.log(total)) if total > 3 else 0
    orders = [subject.need("order")(epoch, seed=SEED + epoch) for epoch in range(count)]
    if len({tuple(order) for order in orders}) < len(orders) or not orders:
        return None  # it does not shuffle, or nothing that is known moves it
    missing = set(range(total)) - set(orders[0])
    if any(set(range(total)) - set(order) != missing or len(order) != len(set(order)) for order in orders):
        return None
    if not missing or not missing <= {0, total - 1} or (total - len(missing)) % train.batch_size == 0:
        return None
    sampler = getattr(subject.order, "sampler", None)
    if _rounds(sampler) or _holds(sampler, set(orders[0]), total):
        return None
    if any(_is_odd(train.dataset, index, total, missing) for index in missing):
        return None
    return sorted(missing), count


def _holds(sampler: Any, drawn: set[int], total: int) -> bool:
    """Return whether an attribute of a sampler lists the rows that are drawn."""
    for value in vars(sampler).values() if hasattr(sampler, "__dict__") else ():
        try:
            known = value.tolist() if hasattr(value, "tolist") else value
            listed = isinstance(known, (list, tuple, set, frozenset, range)) and len(drawn) <= len(known) <= total
            if listed and (set(known) == drawn or (len(known) == total and sum(map(bool, known)) == len(drawn))):
                return True
        except TypeError:
            continue
    return False


def _rounds(sampler: Any) -> bool:
    """Return whether the code that draws rows rounds their number, so as to drop what makes no whole group.

    A sampler whose code cannot be read, or that is a library's, may do so.
    """
    kind = type(sampler)
    try:
        path = inspect.getsourcefile(kind)
        methods = [each for each in (getattr(kind, "__init__", None), kind.__iter__) if inspect.isfunction(each)]
        codes = [inspect.getsource(each) for each in methods]
    except (OSError, TypeError):
        return True
    rounding = any(re.search(r"//|%|drop_last|divmod|floor", re.sub(r"#.*", "", code)) for code in codes)
    return rounding or path is None or not is_user_code(path)


def _is_odd(dataset: Any, index: int, total: int, missing: set[int]) -> bool:
    try:
        row = dataset[index]
        others = [dataset[each] for each in _spread(total) if each not in missing]
    except Exception:
        return True
    sizes = [_size(each) for each in others]
    unlabelled = isinstance(row, Mapping) and _all_ignored(row.get("labels"))
    return not min(sizes) <= _size(row) <= max(sizes) or unlabelled or any(str(row) == str(each) for each in others)


def _spread(total: int) -> list[int]:
    return sorted({place * (total - 1) // COMPARED for place in range(COMPARED + 1)})


def _size(value: Any) -> int:
    """Return the number of numbers and characters in a row."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, str):
        return len(value)
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 1


def _all_ignored(labels: Any) -> bool:
    values = labels.tolist() if hasattr(labels, "tolist") else labels
    return isinstance(values, (list, tuple)) and all(each == IGNORED for each in values)
