"""Probes of the collator: what it does to its rows, and whether it repeats itself."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.subject import TASKS, Split, Subject


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the random generators. The runner of probes restores them."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    yield


def equal(first: Any, second: Any) -> bool:
    """Tell whether two nested values are equal, whatever their types."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if hasattr(first, "tolist") or hasattr(second, "tolist"):
        first = first.tolist() if hasattr(first, "tolist") else first
        second = second.tolist() if hasattr(second, "tolist") else second
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second) or (first != first and second != second)


@probe(
    "collator-keeps-its-rows",
    group="batches",
    says="The collator does not change the rows it is given.",
    budget="fast",
)
def collator_keeps_its_rows(subject: Subject) -> Finding:
    """Collate copies of rows, and compare the copies with the rows.

    Fault: The collator changes rows that the data set keeps in memory. The second epoch gets other batches than the
    first, or raises an error.

    Causes: The collator takes labels out with `row.pop('labels')`, or appends padding to the row's own list.

    Remedy: Copy the rows at the start of the collator: `rows = [dict(row) for row in rows]`, and build new lists
    instead of appending to those of the row.

    Warning: The collator changes its rows, but the data set makes them anew each time, or the second batch is the
    same. It breaks as soon as the data are kept in a list.
    """
    train = subject.need("train")
    if train.collate is None:
        raise NotChecked("there is no collator: pass collator=")
    rows = copy.deepcopy(_some(train))
    given = copy.deepcopy(rows)
    with _seeded(0):
        train.collate(given)
    changed = sorted({name for row, after in zip(rows, given, strict=True) for name in _changed(row, after)})
    if not changed:
        return passed("the collator leaves its rows as they are")
    which = ", ".join(changed)
    where = f" ({subject.where['collator']})" if subject.where.get("collator") else ""
    if not _lasting(train, changed):
        return warn(
            f"the collator changes {which} of its rows",
            cause=f"harmless here, because the data set makes its rows anew each time; copy them all the same{where}",
        )
    with _seeded(0):
        fresh = train.collate(copy.deepcopy(rows))
    try:
        with _seeded(0):
            again = train.collate(given)
        same = equal(_plain(fresh), _plain(again))
        how = "gets another batch of the same rows"
    except Exception as error:
        same, how = False, f"raises {type(error).__name__} on the same rows"
    message = f"the collator changes {which} of the rows of the data set"
    if same:
        return warn(message, cause=f"the next epoch gets the same batches all the same; copy the rows{where}")
    return fail(message, cause=f"the data are kept in memory, so the second epoch {how}: copy the rows first{where}")


def _plain(batch: Any) -> Any:
    return dict(batch) if isinstance(batch, Mapping) else batch


def _some(train: Split) -> list[Any]:
    return train.items(max(2, min(train.batch_size, 8)))


def _changed(before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from (str(key) for key in {*before, *after} if key not in before or key not in after)
        yield from (str(key) for key in before if key in after and not equal(before[key], after[key]))
    elif not equal(before, after):
        yield "the values"


def _lasting(split: Split, names: Sequence[str]) -> bool:
    """Tell whether a change of a row stays in the data set: it returns the same object twice."""
    if not hasattr(split.dataset, "__getitem__"):
        return False
    first, second = split.dataset[0], split.dataset[0]
    if first is second and split.columns is None:
        return True
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        kept = [name for name in names if name in first and first[name] is second.get(name)]
        return any(isinstance(first[name], (list, dict)) or hasattr(first[name], "fill_") for name in kept)
    return False


@probe(
    "collator-repeats-itself",
    group="batches",
    says="The same rows give the same batch, unless the collator draws at random on purpose.",
    tasks=[task for task in TASKS if task != "masked-lm"],
    budget="fast",
)
def collator_repeats_itself(subject: Subject) -> Finding:
    """Collate the same rows three times, with two seeds.

    Warning: The collator makes different batches of the same rows. With the same seed, that means a generator of its
    own or a state that it keeps, so that runs of one seed differ. With another seed, it means that it draws at random.

    Remedy: If the randomness is meant, ignore the warning. Otherwise seed it, or draw from the global generator of
    torch, so that `set_seed` reaches it.
    """
    train = subject.need("train")
    if train.collate is None:
        raise NotChecked("there is no collator: pass collator=")
    rows = copy.deepcopy(_some(train))
    made = []
    for seed in (0, 0, 1):
        with _seeded(seed):
            made.append(_plain(train.collate(copy.deepcopy(rows))))
    if not equal(made[0], made[1]):
        return warn(
            "the collator makes different batches of the same rows, with the same seed",
            cause="it draws from a generator of its own or keeps a state: runs of one seed differ",
        )
    if not equal(made[0], made[2]):
        return warn("the collator draws at random", cause="right if it is meant to augment the data")
    return passed("the collator makes the same batch of the same rows")


@probe(
    "columns-reach-the-model",
    group="batches",
    says="What the rows hold for the model is in the batch.",
    budget="fast",
)
def columns_reach_the_model(subject: Subject) -> Finding:
    """Look for columns that the model takes, that hold different values, and that the collator drops.

    Warning: The rows hold a column that the model's forward takes, such as token_type_ids, and the batch does not. The
    model uses its default instead, and raises no error.

    Remedy: Add the column to what the collator returns. `tokenizer.pad` keeps all columns of token ids that it knows.
    """
    train = subject.need("train")
    accepted = inspect.signature(subject.need("model").forward).parameters
    rows = train.rows(8)
    if not rows:
        raise NotChecked("the rows that batches are made of are not known")
    batch = train.batch()
    lost = []
    for name in rows[0]:
        if name not in accepted or name in batch or name == "attention_mask":
            continue
        values = {each for row in rows for each in _flat(row[name])}
        if len(values) > 1:
            lost.append(name)
    if lost:
        return warn(
            f"{', '.join(lost)}: in the rows, taken by the model, and not in the batch",
            cause="the collator drops them, and the model uses its default instead",
        )
    return passed("every column that the model takes is in the batch")


def _flat(value: Any) -> list[Any]:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, (list, tuple)):
        return [inner for each in value for inner in _flat(each)]
    return [value]
