"""Probes of the order of training rows: epochs, seeds, streams."""

from __future__ import annotations

import inspect
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from touchstone.auditing.adapters.loop_order import LoopOrder, same_beginnings
from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.left_out import ends_left_out
from touchstone.auditing.subject import Subject

GROUP = "order"
EPOCHS = 3
SEEDS = (11, 12)
MEASURED = 300
"""Rows whose lengths are measured, to see whether an order is one of lengths."""
LIBRARIES = ("torch.", "transformers.", "accelerate.", "datasets.")
RANDOM = re.compile(r"randperm|shuffle|randint|random|permutation|rng|sample\(")


def epochs(subject: Subject, count: int = EPOCHS) -> list[list[int]]:
    """Return the order of the training rows in the first epochs."""
    order = subject.need("order")
    return [order(epoch) for epoch in range(count)]


def sampler_of(subject: Subject) -> Any:
    """Return the sampler of the training rows, or None if it is not known."""
    return getattr(subject.order, "sampler", None)


def is_own(sampler: Any) -> bool:
    """Return whether a sampler is the user's own, not one of a library."""
    return sampler is not None and not f"{type(sampler).__module__}.".startswith(LIBRARIES)


def place(sampler: Any) -> str:
    """Return ` (Name at file:line)` of a sampler's class, or an empty string."""
    if not is_own(sampler):
        return ""
    name = type(sampler).__name__
    try:
        return f" ({name} at {inspect.getsourcefile(type(sampler))}:{inspect.getsourcelines(type(sampler))[1]})"
    except (OSError, TypeError):
        return f" ({name})"


def repeats_on_purpose(sampler: Any) -> str:
    """Return how a sampler says that it draws rows with replacement, or an empty string."""
    if getattr(sampler, "replacement", False):
        return "with replacement"
    if getattr(sampler, "weights", None) is not None:
        return "by weights"
    return ""


@probe(
    "every-row-trained-once",
    group=GROUP,
    says="Every training row is drawn once in each epoch.",
    budget="fast",
)
def every_row_trained_once(subject: Subject) -> Finding:
    """Draw the indices of three epochs, and count rows that are drawn twice or never.

    Fault: The same rows are left out in every epoch, or the sampler draws fewer rows than it says.

    Causes: A sampler of your own makes a wrong set of indices: an off-by-one, a stale length, or the same index twice.

    Remedy: Draw a permutation, `torch.randperm(len(data)).tolist()`, and return its length from `__len__`.

    Warning: Rows repeat or are missing in a way that may be meant: drawing with replacement, a filled last batch, a
    subset, or drop_last without shuffling.
    """
    drawn = epochs(subject)
    total = getattr(subject.order, "total", None) or len(subject.need("train"))
    sampler = sampler_of(subject)
    first = Counter(drawn[0])
    if drawn[0] and max(first) >= total:
        raise NotChecked("the loader draws from other data than the training data")
    missing = total - len(first)
    repeated = sum(count > 1 for count in first.values())
    never = total - len(set().union(*drawn))
    if not missing and not repeated:
        return passed(f"each of {total} rows is drawn once in an epoch")
    purpose = repeats_on_purpose(sampler)
    if purpose:
        return passed(
            f"rows are drawn {purpose}, as the sampler says: {repeated} of {total} more than once, {missing} never in "
            "the first epoch"
        )
    figures: dict[str, Any] = {
        "measured": {"never in one epoch": missing, "more than once": repeated, "never in three epochs": never},
        "expected": {"never in one epoch": 0, "more than once": 0},
    }
    if not repeated:
        return _subset(subject, total, missing, never, figures)
    message = f"in one epoch {repeated} of {total} rows are drawn more than once and {missing} never"
    if missing == 0 and len(drawn[0]) - total < subject.need("train").batch_size * 8:
        return warn(
            message,
            cause=f"{len(drawn[0]) - total} rows are drawn again, perhaps to fill the last batch{place(sampler)}",
            **figures,
        )
    if never > missing * 0.9 and missing:
        return fail(
            message,
            cause=f"the same {never} rows are left out in every epoch, and others repeat: the sampler draws a wrong "
            f"set of indices{place(sampler)}",
            **figures,
        )
    return warn(
        message,
        cause=f"rows are drawn with replacement or by a rule{place(sampler)}; if each row should be seen once an "
        "epoch, draw a permutation, such as torch.randperm",
        **figures,
    )


def _subset(subject: Subject, total: int, missing: int, never: int, figures: dict[str, Any]) -> Finding:
    """Judge an epoch that lacks rows and repeats none."""
    train = subject.need("train")
    sampler = sampler_of(subject)
    message = f"{missing} of {total} training rows are not drawn in an epoch, {never} in none of {EPOCHS} epochs"
    if train.drop_last and missing == total % train.batch_size:
        if never < missing:
            return passed(f"the last, incomplete batch of {missing} rows is dropped, other rows in each epoch")
        return warn(
            message,
            cause=f"drop_last drops the same {missing} rows in every epoch, as they are not shuffled",
            **figures,
        )
    says = _length(sampler)
    if is_own(sampler) and says == total:
        return fail(
            message,
            cause=f"the sampler says that it draws {says} rows, and draws {total - missing}{place(sampler)}",
            **figures,
        )
    if is_own(sampler) and missing <= 2 and (left_out := ends_left_out(subject, total)):
        rows, drawn = left_out
        which = "the last row is" if rows == [total - 1] else "the first row is" if rows == [0] else "both ends are"
        return fail(
            message,
            cause=f"the sampler shuffles {total - missing} of {total} rows, and {which} in none of {drawn} epochs with "
            f"other orders: its range is too short, so let it draw range({total}){place(sampler)}",
            **figures,
        )
    cause = f"the loader draws {total - missing} rows{place(sampler)}: if this is no subset on purpose, draw all"
    return warn(message, cause=cause, **figures)


def _length(sampler: Any) -> int | None:
    try:
        return len(sampler)
    except TypeError:
        return None


@probe(
    "epochs-differ",
    group=GROUP,
    says="The rows are shuffled, and every epoch has another order.",
    budget="fast",
)
def epochs_differ(subject: Subject) -> Finding:
    """Compare the orders of two epochs.

    Fault: The rows are shuffled, but every epoch has the same order.

    Causes: Nobody calls the sampler's set_epoch, or the generator is seeded anew in each epoch.

    Remedy: Call `sampler.set_epoch(epoch)` at the start of each epoch, or keep one generator for all epochs.
    Accelerate calls it for a prepared loader.

    Warning: The rows are not shuffled at all, are sorted by length, or a stream keeps its order. Use `shuffle=True`
    unless the order matters.
    """
    stream = subject.extra.get("stream")
    if stream is not None:
        return _stream(stream)
    if isinstance(subject.order, LoopOrder):
        return same_beginnings(subject.order)
    if subject.settings.epochs is not None and subject.settings.epochs <= 1 and not subject.settings.max_steps:
        one = epochs(subject, 1)[0]
        if one != sorted(one):
            return passed("the rows are shuffled; there is one epoch")
    first, second = epochs(subject, 2)
    if len(first) < 4:
        raise NotChecked(f"there are only {len(first)} training rows")
    if first != second:
        return passed("the rows are shuffled anew in each epoch")
    sampler = sampler_of(subject)
    if first == sorted(first):
        return warn(
            "the rows are not shuffled: every epoch has the order of the data set",
            cause=f"the sampler of the training rows is {type(sampler).__name__}{place(sampler)}: use a random one "
            "unless the order matters",
        )
    if _by_length(subject, first):
        return warn(
            "every epoch has the same order, that of the lengths",
            cause=f"rows are sorted by length and not shuffled{place(sampler)}: batches are the same in every epoch",
        )
    changes = subject.need("order")(0, seed=SEEDS[0]) != subject.need("order")(0, seed=SEEDS[1])
    if not changes and not _looks_random(sampler):
        return warn(
            "every epoch has the same order, which is not that of the data set",
            cause=f"the order is fixed{place(sampler)}: if it should be random, shuffle anew in each epoch",
        )
    cause = (
        "the order is drawn once, or its generator is seeded anew each time the sampler is iterated: keep one "
        "generator, or add the epoch to its seed"
    )
    if hasattr(sampler, "set_epoch"):
        cause = (
            "the sampler takes its epoch from set_epoch, which nobody calls: return the loader through "
            "accelerator.prepare, or call sampler.set_epoch(epoch) at the start of each epoch"
        )
    return fail(
        "the rows are shuffled, but every epoch has the same order",
        cause=f"{cause}{place(sampler)}",
        measured=first[:8],
        expected="another order in the second epoch",
    )


def _looks_random(sampler: Any) -> bool:
    """Return whether a sampler shuffles, by its generator or its code."""
    if getattr(sampler, "generator", None) is not None:
        return True
    try:
        return bool(RANDOM.search(inspect.getsource(type(sampler))))
    except (OSError, TypeError):
        return False


def _by_length(subject: Subject, order: Sequence[int]) -> bool:
    """Return whether an order is one of rising or falling lengths, up to small steps back."""
    dataset = subject.need("train").dataset
    lengths = []
    for index in order[:MEASURED]:
        row = dataset[index]
        ids = row.get("input_ids") if hasattr(row, "get") else None
        if ids is None:
            return False
        lengths.append(len(ids))
    steps = [after - before for before, after in itertools.pairwise(lengths)]
    moves = [step for step in steps if step]
    return bool(moves) and (sum(step > 0 for step in moves) in (0, len(moves)))


def _stream(stream: Any) -> Finding:
    """Judge a stream by the first rows of two epochs."""
    (first, shuffled), (second, _) = stream(0), stream(1)
    if len(first) < 4:
        raise NotChecked(f"the stream has only {len(first)} rows")
    if first != second:
        return passed(f"the first {len(first)} rows of the stream differ in order between epochs")
    if not shuffled:
        return warn(
            "the stream is not shuffled: every epoch has the same order",
            cause="call shuffle(buffer_size=..., seed=...) on the streaming data set",
        )
    return warn(
        "the stream is shuffled, but every epoch has the same order",
        cause="the epoch does not reach the stream: its set_epoch(epoch) must be called at the start of each epoch",
    )


@probe(
    "same-seed-same-order",
    group=GROUP,
    says="The same seed gives the same order, and another seed another.",
    budget="fast",
)
def same_seed_same_order(subject: Subject) -> Finding:
    """Draw an epoch twice with one seed, once more after other random numbers, and once with another seed.

    Fault: One seed gives two orders. The run can be neither repeated nor resumed.

    Causes: A sampler draws from a generator that no seed reaches, such as `random.Random()` or
    `np.random.default_rng()`.

    Remedy: Seed it with the run's seed: `generator = torch.Generator().manual_seed(args.seed)`.

    Warning: The order depends on how many random numbers were drawn before, so another initialisation changes it. Give
    the sampler a generator of its own.
    """
    order = subject.need("order")
    once = order(0, seed=SEEDS[0])
    if len(once) < 4:
        raise NotChecked(f"there are only {len(once)} training rows")
    again = order(0, seed=SEEDS[0], again=True)
    sampler = sampler_of(subject)
    if once != again:
        return fail(
            "one seed gives two orders",
            cause=f"the sampler draws from a generator that no seed reaches{place(sampler)}: seed it with args.seed, "
            "or a run can be neither repeated nor resumed",
            measured=again[:8],
            expected=once[:8],
        )
    moved = order(0, seed=SEEDS[0], drawn_before=5)
    if once != moved and type(sampler).__module__.startswith("torch."):
        return passed("one seed gives one order, which also depends on the random numbers that are drawn before")
    if once != moved:
        thread = " (transformers#48025 gave the sampler of the evaluation its own)" if _grouped(sampler) else ""
        return warn(
            "the order depends on how many random numbers were drawn before",
            cause=f"{type(sampler).__name__} draws from the global generator: another initialisation of the model, or "
            f"resuming within an epoch, changes the order; give it a generator of its own{thread}{place(sampler)}",
        )
    other = order(0, seed=SEEDS[1])
    if other == once and once != sorted(once):
        return passed("one seed gives one order; the order does not depend on the seed")
    return passed("one seed gives one order" + ("; the rows are not shuffled" if other == once else ""))


def _grouped(sampler: Any) -> bool:
    return type(sampler).__name__ == "LengthGroupedSampler"


@probe(
    "resumed-run-goes-on",
    group=GROUP,
    says="A run that is stopped and resumed goes on with the rows that the whole run would draw.",
    budget="deep",
)
def resumed_run_goes_on(subject: Subject) -> Finding:
    """Stop a short training within its second epoch, resume it, and compare the rows with those of a whole training.

    Fault: After a resume within an epoch, a run trains on other rows than it would have. Some are trained on twice,
    others never.

    Causes: A sampler of your own makes an order that depends on more than the seed and the epoch.

    Remedy: Seed the generator with `seed + epoch` in set_epoch.

    Warning: ignore_data_skip is set, or the sampler of the library draws from the global generator, whose state is
    restored too late.
    """
    resume = subject.extra.get("resume")
    if resume is None:
        raise NotChecked("a training cannot be stopped and resumed here")
    whole, rest = resume()
    sampler = sampler_of(subject)
    if whole == rest:
        return passed(f"{len(rest)} batches after a resume within the second epoch are those of the whole run")
    same = sum(one == two for one, two in zip(whole, rest, strict=False))
    message = f"{same} of {len(whole)} batches after a resume within the second epoch are those of the whole run"
    figures: dict[str, Any] = {"measured": same, "expected": len(whole)}
    if subject.settings.skips_no_data:
        return warn(
            message,
            cause="ignore_data_skip is set: a resumed run begins the epoch anew, and trains twice on some rows",
            **figures,
        )
    if is_own(sampler):
        return fail(
            message,
            cause="the order of an epoch must depend on the seed and the epoch only, so that a resume can draw it "
            f"again: seed the generator with seed + epoch in set_epoch{place(sampler)}",
            **figures,
        )
    return warn(
        message,
        cause=f"{type(sampler).__name__} draws its order from the global generator, whose state is restored only after "
        "the order is drawn: rows are trained on twice and others never. Give the sampler a generator that is seeded "
        "with seed + epoch",
        **figures,
    )
