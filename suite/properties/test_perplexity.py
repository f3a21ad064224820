"""Checks X1-X4 of docs/contract.md: `perplexity`."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from touchstone.properties.check import check
from touchstone.properties.failure import expect_close, expect_that
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.subject import Subject

LOG_TOLERANCE = 1e-5
"""An implementation may add up in float32, which keeps 7 digits of a mean loss of up to 20 nats; exp turns the absolute
error of the mean into the relative error of the perplexity."""

losses = st.floats(0, 20, allow_nan=False, width=32)
counts = st.integers(1, 5000)


def weighted(batches: list[tuple[float, int]]) -> float:
    """Return the perplexity by its definition: exp of the mean loss per token."""
    return math.exp(math.fsum(loss * n for loss, n in batches) / sum(n for _, n in batches))


def perplexity(implementation: Subject, batches: list[tuple[float, int]]) -> float:
    result: float = implementation.perplexity([loss for loss, _ in batches], tokens=[n for _, n in batches])
    return result


some_batches = st.lists(st.tuples(losses, counts), min_size=1, max_size=6)


@check("X1", needs="perplexity", batches=some_batches, cut=st.integers(0, 6))
def test_perplexity_must_not_depend_on_batching(
    implementation: Subject, batches: list[tuple[float, int]], cut: int
) -> None:
    parts = [part for part in (batches[:cut], batches[cut:]) if part]
    sizes = [sum(n for _, n in part) for part in parts]
    merged = [(math.fsum(loss * n for loss, n in part) / size, size) for part, size in zip(parts, sizes, strict=True)]
    whole, other = perplexity(implementation, batches), perplexity(implementation, merged)
    expect_close(whole, other, relative=LOG_TOLERANCE, where="the same tokens in other batches")


@check("X1", needs="perplexity", batches=st.lists(st.tuples(losses, st.integers(1, 20)), min_size=1, max_size=6))
def test_perplexity_must_be_the_same_with_one_token_per_batch(
    implementation: Subject, batches: list[tuple[float, int]]
) -> None:
    single = [(loss, 1) for loss, n in batches for _ in range(n)]
    whole, other = perplexity(implementation, batches), perplexity(implementation, single)
    expect_close(whole, other, relative=LOG_TOLERANCE, where="one token per batch")


@check("X2", needs="perplexity", size=st.integers(1, 300_000), tokens=st.lists(counts, min_size=1, max_size=6))
def test_the_perplexity_of_a_uniform_model_must_be_the_size_of_its_vocabulary(
    implementation: Subject, size: int, tokens: list[int]
) -> None:
    came = implementation.perplexity([math.log(size)] * len(tokens), tokens=tokens)
    expect_close(float(size), came, relative=LOG_TOLERANCE)


@check("X3", needs="perplexity", batches=some_batches)
def test_a_batch_must_weigh_as_much_as_its_tokens(implementation: Subject, batches: list[tuple[float, int]]) -> None:
    expect_close(weighted(batches), perplexity(implementation, batches), relative=LOG_TOLERANCE)


@check("X4", needs="perplexity", batches=some_batches, place=st.integers(0, 6))
def test_an_empty_batch_must_count_for_nothing(
    implementation: Subject, batches: list[tuple[float, int]], place: int
) -> None:
    for loss in (7.0, math.nan, math.inf, -1.0):
        came = perplexity(implementation, [*batches[:place], (loss, 0), *batches[place:]])
        where = f"with an empty batch whose loss is {loss}"
        expect_close(weighted(batches), came, relative=LOG_TOLERANCE, where=where)


@check("X4", needs="perplexity", loss=st.floats(800, 1e6), tokens=st.lists(counts, min_size=1, max_size=3))
def test_perplexity_must_be_infinite_if_exp_overflows(implementation: Subject, loss: float, tokens: list[int]) -> None:
    came = implementation.perplexity([loss] * len(tokens), tokens=tokens)
    expect_that(came == math.inf, expected="inf: exp of more than 710 overflows double precision", came=came)


@check(
    "X4",
    needs="perplexity",
    kind="refusal",
    batches=some_batches,
    place=st.integers(0, 5),
    loss=st.sampled_from([math.nan, -0.5]),
)
def test_perplexity_must_refuse_an_impossible_loss(
    implementation: Subject, batches: list[tuple[float, int]], place: int, loss: float
) -> None:
    values, tokens = [value for value, _ in batches], [n for _, n in batches]
    place %= len(values)
    values[place] = loss
    implementation.expect_refusal("perplexity", values, mentions=(place, loss), tokens=tokens)


@check(
    "X4", needs="perplexity", kind="refusal", batches=some_batches, place=st.integers(0, 5), count=st.integers(-3, -1)
)
def test_perplexity_must_refuse_a_negative_number_of_tokens(
    implementation: Subject, batches: list[tuple[float, int]], place: int, count: int
) -> None:
    values, tokens = [value for value, _ in batches], [n for _, n in batches]
    place %= len(values)
    tokens[place] = count
    implementation.expect_refusal("perplexity", values, mentions=(place, count), tokens=tokens)


@check("X4", needs="perplexity", kind="refusal", batches=some_batches, more=st.booleans())
def test_perplexity_must_refuse_losses_and_tokens_of_different_lengths(
    implementation: Subject, batches: list[tuple[float, int]], more: bool
) -> None:
    values, tokens = [value for value, _ in batches], [n for _, n in batches]
    tokens = [*tokens, 1] if more else tokens[:-1]
    implementation.expect_refusal("perplexity", values, mentions=(len(values), len(tokens)), tokens=tokens)


@check("X4", needs="perplexity", kind="refusal", batches=st.one_of(st.just([]), some_batches))
def test_perplexity_must_refuse_input_without_tokens(implementation: Subject, batches: list[tuple[float, int]]) -> None:
    implementation.expect_refusal("perplexity", [value for value, _ in batches], tokens=[0] * len(batches))


@check("X4", needs="perplexity", kind="form", batches=some_batches)
def test_perplexity_must_be_pure(implementation: Subject, batches: list[tuple[float, int]]) -> None:
    values, tokens = [loss for loss, _ in batches], [n for _, n in batches]
    expect_pure(implementation, "perplexity", values, tokens=tokens)
    expect_same_for_tuples_and_arrays(implementation, "perplexity", values, tokens=tokens)
