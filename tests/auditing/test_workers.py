"""Worker processes are run for some batches: what they read and draw is compared, and no process is left."""

from __future__ import annotations

import itertools
import multiprocessing
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

import touchstone
from touchstone.auditing.finding import Finding, NotChecked
from touchstone.auditing.reading.workers import fingerprints

WIDTH = 12


def judged(loader: Any, probe: str) -> Finding:
    """Audit a loader with one probe."""
    before = children()  # other tests may have left some
    finding = next(iter(touchstone.audit(loader=loader, probes=[probe])))
    assert children() <= before
    return finding


def children() -> set[int | None]:
    """Return the processes that this one started and that still run."""
    return {each.pid for each in multiprocessing.active_children()}


def collate(rows: list[Any]) -> dict[str, Any]:
    return {"input_ids": torch.stack([torch.as_tensor(row) for row in rows])}


class Rows(Dataset[Any]):
    """Rows of numbers, some of which are replaced by zero as `chosen` tells."""

    def __init__(self, chosen: Callable[[], Any] = lambda: np.ones(WIDTH), size: int = 12) -> None:
        self.chosen, self.size = chosen, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return np.arange(1, WIDTH + 1) * (index + 1) * np.asarray(self.chosen())


def loader(rows: Any, workers: int = 2, **options: Any) -> Any:
    return DataLoader(rows, batch_size=4, collate_fn=collate, num_workers=workers, **options)


# Random numbers


def constant_seed(worker: int) -> None:
    np.random.seed(1)


def seed_by_worker(worker: int) -> None:
    np.random.seed(1 + worker)


def coins() -> Any:
    return np.random.rand(WIDTH) < 0.5


def test_workers_that_torch_seeds_draw_differently() -> None:
    assert judged(loader(Rows(coins)), "workers-draw-differently").outcome == "pass"


def test_workers_that_are_all_seeded_alike_fail() -> None:
    found = judged(loader(Rows(coins), worker_init_fn=constant_seed), "workers-draw-differently")
    assert found.outcome == "fail"
    assert "worker_init_fn" in found.cause
    assert "test_workers.py" in found.cause


def test_workers_that_are_seeded_alike_and_draw_nothing_pass() -> None:
    assert judged(loader(Rows(), worker_init_fn=constant_seed), "workers-draw-differently").outcome == "pass"


def test_workers_that_are_seeded_by_their_number_draw_the_same_in_each_epoch() -> None:
    found = judged(loader(Rows(coins), worker_init_fn=seed_by_worker), "workers-draw-differently")
    assert (found.outcome, "every epoch" in found.message) == ("warn", True)


@pytest.mark.parametrize("make", [np.random.default_rng, random.Random, torch.Generator])
def test_a_generator_that_all_workers_copy_is_named(make: Any) -> None:
    generator = make()

    def drawn() -> Any:
        if isinstance(generator, random.Random):
            return [generator.random() < 0.5 for _ in range(WIDTH)]
        if isinstance(generator, torch.Generator):
            return torch.rand(WIDTH, generator=generator).numpy() < 0.5
        return generator.random(WIDTH) < 0.5

    found = judged(loader(Rows(drawn)), "workers-draw-differently")
    assert found.outcome == "fail"
    assert type(generator).__name__ in found.cause


SHARED = random.Random(5)


def test_a_generator_in_a_global_variable_is_named() -> None:
    found = judged(loader(Rows(lambda: [SHARED.random() < 0.5 for _ in range(WIDTH)])), "workers-draw-differently")
    assert (found.outcome, "global variable" in found.cause) == ("fail", True)


def test_a_generator_that_is_seeded_for_each_row_draws_nothing_new() -> None:
    rows = Rows(lambda: np.random.default_rng(3).random(WIDTH) < 0.5)
    assert judged(loader(rows), "workers-draw-differently").outcome == "pass"


def test_rows_that_change_from_one_batch_to_the_next_without_random_numbers_pass() -> None:
    count = itertools.count()
    found = judged(loader(Rows(lambda: [next(count)] * WIDTH)), "workers-draw-differently")
    assert (found.outcome, "without random numbers" in found.message) == ("pass", True)


def test_a_single_coin_per_batch_is_judged_only_if_it_is_no_chance() -> None:
    flips = iter([True] * 14 + [False] + [True] * 200)
    found = judged(loader(Rows(lambda: [next(flips)] * WIDTH)), "workers-draw-differently")
    assert found.outcome in ("not-checked", "pass")


def test_a_loader_without_workers_passes() -> None:
    assert judged(loader(Rows(coins), workers=0), "workers-draw-differently").outcome == "pass"


def test_a_worker_that_fails_is_not_judged() -> None:
    def broken() -> Any:
        if get_worker_info() is not None:
            raise RuntimeError("no file")
        return np.ones(WIDTH)

    found = judged(loader(Rows(broken)), "workers-draw-differently")
    assert (found.outcome, "failed" in found.message) == ("not-checked", True)


def test_the_workers_of_a_run_leave_generators_and_rows_as_they_are() -> None:
    generator = np.random.default_rng(0)
    before = (generator.bit_generator.state, torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())
    fingerprints(loader(Rows(lambda: generator.random(WIDTH) < 0.5)), 3, batches=[[0, 1]] * 6)
    after = (generator.bit_generator.state, torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())
    assert before == after


def test_a_worker_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    before = children()
    monkeypatch.setattr("touchstone.auditing.reading.workers.WAIT", 1)
    with pytest.raises(NotChecked, match="failed"):
        fingerprints(loader(Rows(lambda: time.sleep(60) or np.ones(WIDTH))), 2, batches=[[0]] * 4)
    assert children() <= before


# Streams


class Stream(IterableDataset[Any]):
    """Numbers in some order, given to workers by a rule."""

    def __init__(self, order: Callable[[Any], Any], size: int = 30) -> None:
        self.order, self.size = order, size

    def __iter__(self) -> Iterator[Any]:
        for number in self.order(get_worker_info()) or ():
            yield np.full(WIDTH, number)


def shuffled(info: Any, size: int = 30) -> list[int]:
    order = list(range(size))
    random.Random(0 if info is None else info.id).shuffle(order)
    return order


@pytest.mark.parametrize(
    ("order", "outcome"),
    [
        (lambda info: range(30), "fail"),
        (lambda info: itertools.count(), "fail"),
        (lambda info: range(0 if info is None else info.id, 30, 1 if info is None else info.num_workers), "pass"),
        (lambda info: (random.random() for _ in range(40)), "pass"),
        (lambda info: itertools.repeat(7), "not-checked"),
        (lambda info: range(30) if info is None or info.id == 0 else (), "pass"),
        (shuffled, "warn"),
        (lambda info: itertools.islice(range(300), info.id if info else 0, None, 3 if info else 1), "fail"),
        (lambda info: range(180) if info and info.id else range(120 if info else 0, 300), "fail"),
        (lambda info: range(140 * info.id, 140 * info.id + 140) if info else range(299), "warn"),
        (lambda info: (number + 100 * (info.id if info else 3) for number in range(30)), "pass"),
    ],
    ids=[
        "all",
        "endless",
        "split",
        "random",
        "equal rows",
        "one worker",
        "shuffled by worker",
        "a third lost",
        "shares overlap",
        "a rest is dropped",
        "other rows than one process",
    ],
)
def test_a_stream_is_judged_by_the_rows_of_its_workers(order: Any, outcome: str) -> None:
    assert judged(loader(Stream(order)), "workers-split-the-stream").outcome == outcome


def test_a_stream_that_worker_init_fn_splits_passes() -> None:
    def split(worker: int) -> None:
        info: Any = get_worker_info()
        info.dataset.order = lambda _: range(worker, 30, info.num_workers)

    rows = Stream(lambda info: range(30))
    assert judged(loader(rows, worker_init_fn=split), "workers-split-the-stream").outcome == "pass"


def test_a_stream_without_workers_passes() -> None:
    assert judged(loader(Stream(lambda info: range(30)), workers=0), "workers-split-the-stream").outcome == "pass"


# Samplers that leave rows out


class Shuffled(Sampler[int]):
    """Shuffles the rows that it is told to draw."""

    def __init__(self, make: Callable[[], Any], *, kept: Any = None) -> None:
        self.make, self.kept = make, kept

    def __iter__(self) -> Iterator[int]:
        order = list(self.make() if self.kept is None else self.kept)
        yield from [order[place] for place in torch.randperm(len(order)).tolist()]


class InPairs(Sampler[int]):
    """Shuffles pairs of neighbours, and drops an odd last row."""

    def __init__(self, size: int) -> None:
        self.pairs = size // 2

    def __iter__(self) -> Iterator[int]:
        for pair in torch.randperm(self.pairs).tolist():
            yield from (2 * pair, 2 * pair + 1)


class Sentences(Dataset[Any]):
    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        length = self.lengths[index]
        return {"input_ids": [index + 5] * length, "labels": [index + 5] * length}


LENGTHS = [3 + index * 7 % 11 for index in range(51)]


@pytest.mark.parametrize(
    ("sampler", "lengths", "found"),
    [
        (Shuffled(lambda: range(50)), LENGTHS, [50]),
        (Shuffled(lambda: range(1, 51)), LENGTHS, [0]),
        (Shuffled(lambda: range(1, 50)), LENGTHS, [0, 50]),
        (Shuffled(lambda: [each for each in range(51) if each != 20]), LENGTHS, None),
        (Shuffled(lambda: range(49)), LENGTHS, None),
        (Shuffled(lambda: range(50)), [*LENGTHS[:-1], 99], None),
        (Shuffled(lambda: range(50)), [*LENGTHS[:-1], 1], None),
        (Shuffled(lambda: range(50), kept=list(range(50))), LENGTHS, None),
        (Shuffled(lambda: torch.randperm(51).tolist()[:50]), LENGTHS, None),
        (Shuffled(lambda: range(48)), LENGTHS[:49], None),
        (InPairs(51), LENGTHS, None),
        (range(50), LENGTHS, None),
    ],
    ids=[
        "last",
        "first",
        "both",
        "middle",
        "two",
        "longest",
        "shortest",
        "chosen",
        "another each time",
        "whole batches",
        "pairs",
        "unshuffled",
    ],
)
def test_only_an_end_that_nothing_explains_is_left_out_by_mistake(sampler: Any, lengths: list[int], found: Any) -> None:
    from types import SimpleNamespace

    from touchstone.auditing.adapters.loop_order import LoopOrder
    from touchstone.auditing.observing.trace import Pass, Trace
    from touchstone.auditing.reading.left_out import ends_left_out
    from touchstone.auditing.subject import Split, Subject

    rows = Sentences(lengths)
    passes = [Pass(0, training=True)]
    trace = Trace(passes=passes, loaders=[DataLoader(rows, batch_size=8, sampler=sampler)])
    subject: Any = SimpleNamespace(order=LoopOrder(trace), train=Split("train", rows, None, 8))
    subject.need = lambda part: Subject.need(subject, part)
    judged = ends_left_out(subject, len(rows))
    assert (None if judged is None else judged[0]) == found
