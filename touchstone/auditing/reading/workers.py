"""Run the worker processes of a loader for some batches, and tell what they read apart by fingerprints.

The workers are forked from this process, so that the user's data set and collator stay as they are here. They get their
own `worker_init_fn`, and are gone when the function returns.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.observing.frames import is_user_code

WAIT = 20
"""Seconds that a batch may take."""
SECONDS = 20
"""Seconds that all batches may take."""
STREAMED = 5
"""Seconds after which a stream is read no further."""
Fingerprints = list[list[str]]
"""What each worker handed out, in order."""


def fingerprints(
    loader: Any,
    count: int,
    *,
    workers: int = 2,
    batches: list[list[int]] | None = None,
    seed: int = 0,
    stir: Callable[[int], None] | None = None,
) -> tuple[Fingerprints, bool]:
    """Run some workers of a loader, and return what each of them hands out, and whether all came to their end.

    Args:
        loader: a DataLoader. It is not iterated, and its generator is not drawn from.
        count: the number of batches that each worker hands out. A stream is left when one of them has read as many
            rows.
        workers: the number of workers.
        batches: the rows of each batch; None for a stream, which is read row by row.
        seed: the base of the workers' seeds.
        stir: called in each worker after its first batch, with the worker's number.

    Raises:
        NotChecked: processes cannot be forked here, a worker failed, or it took too long.
    """
    import torch

    # On macOS, a forked process may crash in the system's own libraries.
    if "fork" not in multiprocessing.get_all_start_methods() or sys.platform == "darwin":
        raise NotChecked("worker processes cannot be forked on this system, so the loader's workers are not run")
    collate = loader.collate_fn if batches is not None else None
    options: dict[str, Any] = {"batch_size": None} if batches is None else {"batch_sampler": batches}
    copied: Any = torch.utils.data.DataLoader(
        loader.dataset,
        collate_fn=_Marked(collate, stir),
        num_workers=workers,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context="fork",
        generator=torch.Generator().manual_seed(seed),
        timeout=WAIT,
        **options,
    )
    found: Fingerprints = [[] for _ in range(workers)]
    limit = STREAMED if batches is None else SECONDS
    ended = True
    with _reading(copied) as given:
        started = time.monotonic()
        for worker, mark in given:
            found[worker].append(mark)
            late = time.monotonic() - started > limit
            if late or (batches is None and len(found[worker]) >= count):
                ended = False
                break
    if not ended and batches is not None:
        raise NotChecked(f"the loader's workers did not hand out {count} batches in {SECONDS} s")
    return found, ended


@contextlib.contextmanager
def _reading(loader: Any) -> Iterator[Iterator[tuple[int, str]]]:
    """Yield the iterator of a loader with workers, and stop them at the end."""
    iterator: Any = None
    try:
        iterator = iter(loader)
        yield iterator
    except NotChecked:
        raise
    except Exception as error:
        text = (str(error).splitlines() or [""])[0]
        raise NotChecked(f"the loader's workers failed ({type(error).__name__}: {text})") from error
    finally:
        stop = getattr(iterator, "_shutdown_workers", None)
        processes = list(getattr(iterator, "_workers", ()))
        if stop is not None:
            stop()
        for process in processes:  # one that hangs is asked to end, and may not have ended yet
            process.join(1)
            if process.is_alive():
                process.kill()
                process.join()
        del iterator  # in other versions, the workers stop when the iterator is gone


class _Marked:
    """A collator that returns the worker's number and a fingerprint of what the user's collator made."""

    def __init__(self, collate: Callable[[Any], Any] | None, stir: Callable[[int], None] | None) -> None:
        self._collate, self._stir = collate, stir

    def __call__(self, rows: Any) -> tuple[int, str]:
        import torch

        info = torch.utils.data.get_worker_info()
        number = 0 if info is None else int(info.id)
        made = rows if self._collate is None else self._collate(rows)
        if self._stir is not None:
            self._stir(number)
            self._stir = None
        return number, fingerprint(made)


def fingerprint(value: Any) -> str:
    """Return a hash of nested values: equal values have equal hashes."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.numpy() if value.is_floating_point() is False else value.float().numpy()
    if hasattr(value, "tobytes"):
        digest.update(f"{getattr(value, 'shape', '')}{getattr(value, 'dtype', '')}".encode())
        digest.update(value.tobytes())
    elif isinstance(value, Mapping) or hasattr(value, "items"):
        for key, each in value.items():
            digest.update(f"{key!r}:".encode())
            _feed(digest, each)
    elif isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}".encode())
        for each in value:
            _feed(digest, each)
    else:
        digest.update(f"{value!r};".encode())


# Random generators ----------------------------------------------------------------------------------------------------


def seed_globals(worker: int) -> None:
    """Give the global random generators of a worker a seed of its own."""
    import numpy as np
    import torch

    random.seed(1009 + worker)
    np.random.seed(1009 + worker)
    torch.manual_seed(1009 + worker)


def seed_found(find: Callable[[], list[Any]]) -> Callable[[int], None]:
    """Return what gives the random generators that are found in a worker a seed of the worker's own."""

    def seed(worker: int) -> None:
        for generator in find():
            _seed(generator, 1009 + worker)

    return seed


def held_generators(loader: Any) -> list[Any]:
    """Return the random generators that a loader's data set and collator hold."""
    from touchstone.auditing.restore import _found as generators_in

    collate = loader.collate_fn
    roots: list[Any] = [loader.dataset, collate]
    roots += [getattr(collate, name, None) for name in ("__self__", "func", "args", "keywords")]
    return generators_in([each for each in roots if each is not None and not inspect.ismodule(each)])


def global_generators() -> list[Any]:
    """Return the random generators that are global variables of the user's modules."""
    found = []
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and is_user_code(path):
            found += [value for value in list(vars(module).values()) if _is_generator(value)]
    return found


def _is_generator(value: Any) -> bool:
    import numpy as np
    import torch

    return isinstance(value, (random.Random, np.random.Generator, np.random.RandomState, torch.Generator))


def _seed(generator: Any, seed: int) -> None:
    if hasattr(generator, "manual_seed"):
        generator.manual_seed(seed)
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    else:
        generator.seed(seed)
