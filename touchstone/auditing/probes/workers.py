"""Probes of a loader's worker processes: what they read, and the random numbers they draw."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.order import GROUP
from touchstone.auditing.reading.workers import fingerprints, held_generators, seed_globals, seed_held
from touchstone.auditing.subject import Subject

STREAMED = 48
"""Rows of a stream that each worker reads."""
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
    says="The worker processes of a stream read different rows.",
)
def workers_split_the_stream(subject: Subject) -> Finding:
    """Run two workers of a stream, and compare the rows that they read."""
    loader = loader_of(subject)
    dataset = loader.dataset
    if not _is_stream(dataset):
        return passed("the training data is no stream: the sampler gives each worker its rows")
    if loader.num_workers < 2:
        return passed(f"the stream is read by one process (num_workers={loader.num_workers})")
    if type(dataset).__module__.startswith("datasets."):
        return passed("streams of datasets give each worker shards of its own")
    (first, second), ended = fingerprints(loader, STREAMED)
    count = min(len(first), len(second))
    if count == 0:
        return passed("one worker reads all rows of the stream, another none")
    if len(set(first)) * 10 < len(first) * 9 or count < 4:
        raise NotChecked(f"two workers read {len(first)} and {len(second)} rows, too few or too alike to compare")
    workers = loader.num_workers
    where = _line(type(dataset))
    cure = (
        "split the data in __iter__ by torch.utils.data.get_worker_info(), such as "
        "itertools.islice(rows, info.id, None, info.num_workers), or set num_workers to 0"
    )
    if first[:count] == second[:count]:
        return fail(
            f"{workers} workers read the same rows of the stream: every row is trained on {workers} times",
            cause=f"each worker has a copy of the stream, and the first {count} rows of two workers are the same, "
            f"in the same order: {cure}{where}",
            measured=count,
            expected=0,
        )
    if ended and Counter(first) == Counter(second):
        return warn(
            f"{workers} workers read the same {len(first)} rows of the stream, in other orders",
            cause=f"every row comes {workers} times in an epoch: {cure}{where}",
        )
    return passed(f"the first {count} rows that two workers read of the stream differ")


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
    """Let two workers make batches of the same rows again and again, and compare their batches."""
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
    held = ", ".join(sorted({_name(each) for each in held_generators(loader)}))
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
    (one, other), _ = fingerprints(loader, DRAWS + 1, batches=batches, stir=seed_held(loader))
    if one[1:] != other[1:]:
        what = (
            f"the data set or the collator holds a random generator ({held}) that was made before the workers started, "
            f"so each of the {loader.num_workers} workers has a copy in the same state"
            if held
            else f"each of the {loader.num_workers} workers makes a random generator from the same seed"
        )
        return fail(
            message,
            cause=f"{what}: make it in the worker on first use, seeded with torch.initial_seed(), which differs by "
            "worker and epoch, or draw from the global generators",
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
