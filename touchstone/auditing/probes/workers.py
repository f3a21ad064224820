"""Probes of a loader's worker processes: what they read, and the random numbers they draw."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.order import GROUP
from touchstone.auditing.reading.streams import hold
from touchstone.auditing.reading.workers import (
    fingerprint,
    fingerprints,
    global_generators,
    held_generators,
    seed_found,
    seed_globals,
)
from touchstone.auditing.subject import Subject

STREAMED = 1000
"""Rows of a stream that a worker reads at most."""
REST = 16
"""Rows of each worker that may be the rest of a group, which is dropped or filled on purpose."""
MOST = 8
"""Workers that are run at most."""
DRAWS = 20
"""Batches of the same rows that each worker makes."""
ROWS = 4
CHANCE = 1e-6
"""Bound on the probability that two workers that draw for themselves make the same batches."""


def loader_of(subject: Subject) -> Any:
    """Return the DataLoader of the training rows, as the run makes it. It must not be iterated.

    Raises:
        NotChecked: there is none, or it cannot be made.
    """
    make = subject.extra.get("training_loader")
    loader = None if make is None else make()
    loader = getattr(loader, "base_dataloader", loader)
    if not hasattr(loader, "num_workers") or not hasattr(loader, "dataset"):
        raise NotChecked("the training rows come from no DataLoader")
    return loader


def _is_stream(dataset: Any) -> bool:
    from torch.utils.data import IterableDataset

    return isinstance(dataset, IterableDataset)


@probe(
    "workers-split-the-stream",
    group=GROUP,
    says="The worker processes of a stream share its rows.",
)
def workers_split_the_stream(subject: Subject) -> Finding:
    """Run the workers of a stream, and compare their rows with each other and with those of one process.

    Fault: Several workers read the same rows, so that each is trained on several times in an epoch. Or many rows are
    read by no worker, or by two.

    Causes: Each worker has a copy of the stream, and `__iter__` does not ask which worker it runs in. Or the stream is
    split twice, in `worker_init_fn` and in `__iter__`.

    Remedy: Split the rows by `torch.utils.data.get_worker_info()`, such as `itertools.islice(rows, info.id, None,
    info.num_workers)`, or set `num_workers` to 0. Streams of datasets are split by themselves.

    Warning: Workers read the same rows in other orders, or a few rows are left out or repeated, which may be the rest
    of a group.
    """
    loader = loader_of(subject)
    dataset = loader.dataset
    if not _is_stream(dataset):
        return passed("the training data is no stream: the sampler gives each worker its rows")
    if loader.num_workers < 2:
        return passed(f"the stream is read by one process (num_workers={loader.num_workers})")
    if type(dataset).__module__.startswith("datasets."):
        return passed("streams of datasets give each worker shards of its own")
    workers = min(loader.num_workers, MOST)
    read, ended = fingerprints(loader, STREAMED, workers=workers)
    parts = [rows for rows in read if rows]
    if len(parts) < 2:
        return passed("one worker reads all rows of the stream")
    count = min(map(len, parts))
    if count < 4 or any(len(set(rows)) * 10 < len(rows) * 9 for rows in parts):
        raise NotChecked(f"{len(parts)} workers read {count} rows or more, too few or too alike to compare")
    where = _line(type(dataset))
    cure = (
        "split the data in __iter__ by torch.utils.data.get_worker_info(), such as "
        "itertools.islice(rows, info.id, None, info.num_workers), or set num_workers to 0"
    )
    alike = Counter(tuple(rows[:count]) for rows in parts).most_common(1)[0][1]
    if alike > 1:
        return fail(
            f"{alike} workers read the same rows of the stream: every row is trained on {alike} times",
            cause=f"each worker has a copy of the stream, and the first {count} rows of {alike} workers are the same, "
            f"in the same order: {cure}{where}",
            measured=alike,
            expected=1,
        )
    if ended and all(Counter(rows) == Counter(parts[0]) for rows in parts):
        return warn(
            f"{len(parts)} workers read the same {len(parts[0])} rows of the stream, in other orders",
            cause=f"every row comes {len(parts)} times in an epoch: {cure}{where}",
        )
    if ended and loader.num_workers <= MOST and (finding := _shares(dataset, parts, where)) is not None:
        return finding
    return passed(f"the first {count} rows that {len(parts)} workers read of the stream differ")


def _shares(dataset: Any, parts: Sequence[Sequence[str]], where: str) -> Finding | None:
    """Judge whether workers share the rows that one process reads, or return None if their rows are others."""
    held = hold(dataset, STREAMED * len(parts))
    whole, shared = Counter(map(fingerprint, held)), Counter(each for rows in parts for each in rows)
    if len(held) >= STREAMED * len(parts) or not shared.keys() <= whole.keys():
        return None  # texts are joined in each worker, rows are random, or one process was not ready in time
    lost, again = (whole - shared).total(), (shared - whole).total()
    total = whole.total()
    if not lost and not again:
        return passed(f"{len(parts)} workers share the {total} rows of the stream")
    told = [f"{lost} are read by none"] * bool(lost) + [f"{again} are read again"] * bool(again)
    message = f"of {total} rows of the stream, {' and '.join(told)} of {len(parts)} workers"
    cause = f"rows are split by worker, and the shares do not add up: give worker i rows i, i + n, i + 2n ...{where}"
    if max(lost, again) <= max(REST * len(parts), 0.1 * total):
        return warn(message, cause=f"{cause}. Perhaps each worker drops a rest or repeats rows to fill a group")
    return fail(message, cause=cause, measured={"lost": lost, "again": again}, expected={"lost": 0, "again": 0})


def _line(kind: type) -> str:
    try:
        return f" ({kind.__name__} at {inspect.getsourcefile(kind)}:{inspect.getsourcelines(kind)[1]})"
    except (OSError, TypeError):
        return f" ({kind.__name__})"


@probe(
    "workers-draw-differently",
    group=GROUP,
    says="The worker processes of the loader draw random numbers of their own.",
)
def workers_draw_differently(subject: Subject) -> Finding:
    """Let two workers make batches of the same rows again and again, and compare their batches.

    Fault: Workers draw the same random numbers, so that masks, crops or dropped words repeat in every few batches.

    Causes: `worker_init_fn` seeds all workers alike. Or the data set or the collator holds a generator that was made
    before the workers started, and each of them has a copy.

    Remedy: Leave `worker_init_fn` out, as torch seeds random, numpy and itself in each worker. Make a generator of your
    own in the worker on first use, seeded with `torch.initial_seed()`.

    Warning: Workers draw other numbers than each other, but the same in every epoch.
    """
    loader = loader_of(subject)
    dataset = loader.dataset
    if loader.num_workers < 1:
        return passed("no worker process draws random numbers (num_workers=0)")
    if _is_stream(dataset) or not hasattr(dataset, "__len__"):
        raise NotChecked("the rows of a stream cannot be chosen, so that two workers cannot be given the same")
    if loader.collate_fn is None:
        raise NotChecked("the loader has no collator")
    rows = list(range(min(ROWS, len(dataset))))
    batches = [rows] * (2 * (DRAWS + 1))
    (first, second), _ = fingerprints(loader, DRAWS + 1, batches=batches)
    if len(set(first)) == 1 and first == second:
        return passed(f"{len(first)} batches of the same rows are the same in each worker: nothing random is drawn")
    if first[1:] != second[1:] or loader.num_workers < 2:
        return _next_epoch(loader, batches, first)
    if not _is_proof(first[1:]):
        raise NotChecked("batches of the same rows are too alike to tell whether two workers draw the same numbers")
    message = f"two workers make the same {DRAWS} random batches of the same rows"
    (one, other), _ = fingerprints(loader, DRAWS + 1, batches=batches, stir=seed_globals)
    if one[1:] != other[1:]:
        init = loader.worker_init_fn
        what = "worker_init_fn" if init is not None else "the code of the rows"
        where = f" ({_where(init)})" if init is not None and _where(init) else ""
        return fail(
            message,
            cause=f"{what} gives the global generators the same seed in each worker, so {loader.num_workers} batches "
            "in a row have the same random numbers: seed from torch.initial_seed(), which differs by "
            f"worker and epoch, or leave it out, as torch seeds random, numpy and itself in each worker{where}",
        )
    copied = (
        ("the data set or the collator holds a random generator", partial(held_generators, loader)),
        ("the script draws from a random generator in a global variable", global_generators),
    )
    for what, find in copied:
        (one, other), _ = fingerprints(loader, DRAWS + 1, batches=batches, stir=seed_found(find))
        if one[1:] == other[1:]:
            continue
        names = ", ".join(sorted({_name(each) for each in find()}))
        cause = (
            f"{what} ({names}) that was made before the workers started, so each of the {loader.num_workers} workers "
            "has a copy in the same state"
            if names
            else f"each of the {loader.num_workers} workers makes a random generator from the same seed"
        )
        return fail(
            message,
            cause=f"{cause}: make it in the worker on first use, seeded with torch.initial_seed(), which differs by "
            "worker and epoch, or draw from the global generators of torch, numpy or random",
        )
    return passed("batches of the same rows change in the same way in two workers, without random numbers")


def _next_epoch(loader: Any, batches: list[list[int]], first: Sequence[str]) -> Finding:
    """Judge by the workers of another epoch whether epochs draw other random numbers."""
    if getattr(loader, "persistent_workers", False):
        return passed(f"the random batches of {loader.num_workers} workers differ")
    (again, _), _ = fingerprints(loader, DRAWS + 1, batches=batches, seed=1)
    if again[1:] == first[1:] and _is_proof(first[1:]):
        return warn(
            "workers draw the same random numbers in every epoch",
            cause="workers start anew in each epoch, from the same seed or from a copy of the same generator: seed "
            "from torch.initial_seed() in the worker, which differs by worker and epoch, or set persistent_workers",
        )
    return passed("batches of the same rows differ between workers and between epochs")


def _is_proof(draws: Sequence[str]) -> bool:
    """Return whether equal draws of two workers are no chance, by how often draws of one worker are equal."""
    pairs = len(draws) * (len(draws) - 1) // 2
    equal = sum(count * (count - 1) // 2 for count in Counter(draws).values())
    return min((equal + 3) / pairs, 1.0) ** len(draws) <= CHANCE


def _name(generator: Any) -> str:
    return f"{type(generator).__module__}.{type(generator).__name__}".replace("torch._C", "torch").replace(
        "._generator", ""
    )


def _where(function: Any) -> str:
    code = getattr(getattr(function, "func", function), "__code__", None)
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
