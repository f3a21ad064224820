"""Masks by hand, the generator against published numbers and chance, and the batched version."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from touchstone.stages import mask_tokens, mask_tokens_batch
from touchstone.stages.draws import GAMMA, draw, draw_array, extend_keys, key_of, mix
from touchstone.stages.masking import _thresholds
from touchstone.stages.ragged import Ragged

MASK = 103
VOCABULARY = np.arange(1000, 1100)
PLACE = {"seed": 42, "epoch": 0, "example": 7}


def mask(input_ids: list[int], **options: Any) -> tuple[list[int], list[int]]:
    arguments = {"special": [False] * len(input_ids), "mask_id": MASK, "vocabulary": VOCABULARY} | PLACE | options
    return mask_tokens(input_ids, **arguments)


# The generator --------------------------------------------------------------------------------------------------------


def test_the_generator_is_splitmix64() -> None:
    """The expected values are the published outputs for the seed 1234567 (rosettacode.org, "SplitMix64")."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [mix((1234567 + n * GAMMA) % 2**64) for n in range(1, 6)] == published
    assert [x / 2**64 for x in published] == pytest.approx([draw(1234567, n) for n in range(5)], abs=2**-53)


def test_draws_equal_recorded_values() -> None:
    """Records identify their masks by a seed, so another generator would make them incomparable."""
    assert key_of(42, 0, 7) == 13090017725586151217
    masked, labels = mask(list(range(2000, 2020)), rate=0.5)
    expected = {0: 103, 1: 1051, 3: 103, 5: 103, 12: 103, 14: 103}
    assert {i: masked[i] for i, label in enumerate(labels) if label != -100} == expected


@pytest.mark.parametrize("part", [0, -1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, -(2**64), 10**40, -(10**40)])
def test_arrays_and_integers_give_the_same_keys_and_draws_for_integers_of_any_size(part: int) -> None:
    for numbers in (part, [part]):
        keys = extend_keys(np.full(1, key_of(3), np.uint64), numbers)
        assert [key_of(3, part)] == keys.tolist()
    assert [draw(key_of(3, part), 5)] == draw_array(keys, np.array([5])).tolist()


def test_integers_of_any_size_and_sign_are_different_places() -> None:
    numbers = [0, 1, -1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, 2**64 + 1, -(2**64), 2**128, -(2**128)]
    assert len(numbers) == len({key_of(number) for number in numbers})
    assert key_of(1, 2) != key_of(2, 1)
    mixture = extend_keys(np.zeros(len(numbers), np.uint64), numbers)
    assert mixture.tolist() == [key_of(number) for number in numbers]


def test_numpy_integers_give_the_same_key_as_python_integers() -> None:
    assert key_of(-5, 3) == key_of(np.int32(-5), np.uint8(3))
    keys = np.zeros(2, np.uint64)
    for kind in (np.int8, np.int64, np.uint64):
        assert extend_keys(keys, [1, 2]).tolist() == extend_keys(keys, np.array([1, 2], kind)).tolist()
    with pytest.raises(TypeError):
        extend_keys(keys, [1.0, 2.0])


@pytest.mark.parametrize("axis", ["position", "example", "epoch", "seed", "stream"])
def test_draws_are_uniform_and_uncorrelated_along_every_axis(axis: str) -> None:
    """Draws are fixed, so this test always passes or always fails. A good generator's p is uniform in [0, 1]: a bound
    of 1e-4 for each of 5 axes and 3 tests refuses a good generator with probability 0.15 %."""
    n = 200_000
    zeros = np.zeros(n, np.int64)
    moving = np.arange(n)
    keys = np.zeros(n, np.uint64)
    for name in ("seed", "epoch", "example", "stream"):
        keys = extend_keys(keys, moving if name == axis else zeros)
    u = draw_array(keys, moving if axis == "position" else zeros)
    assert stats.chisquare(np.histogram(u, bins=256, range=(0, 1))[0]).pvalue > 1e-4
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    pairs, *_ = np.histogram2d(u[:-1], u[1:], bins=16, range=[[0, 1], [0, 1]])
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-4


# Masking --------------------------------------------------------------------------------------------------------------


def test_labels_hold_the_original_ids_of_chosen_tokens_and_other_tokens_are_unchanged() -> None:
    ids = list(range(200))
    masked, labels = mask(ids)
    chosen = [i for i, label in enumerate(labels) if label != -100]
    assert 0 < len(chosen) < 200
    assert [ids[i] for i in chosen] == [labels[i] for i in chosen]
    assert [ids[i] for i in range(200) if i not in chosen] == [masked[i] for i in range(200) if i not in chosen]


def test_rate_0_chooses_nothing_and_rate_1_all_but_special_tokens() -> None:
    special = [True, False, False, True]
    assert mask([1, 2, 3, 4], special=special, rate=0) == ([1, 2, 3, 4], [-100] * 4)
    _, labels = mask([1, 2, 3, 4], special=special, rate=1)
    assert labels == [-100, 2, 3, -100]


@pytest.mark.parametrize(
    ("replacement", "allowed"), [((1, 0, 0), {MASK}), ((0, 1, 0), set(range(1000, 1100))), ((0, 0, 1), {5})]
)
def test_a_replacement_with_share_one_always_happens_and_with_share_zero_never(
    replacement: Any, allowed: set[int]
) -> None:
    masked, _ = mask([5] * 500, rate=1, replacement=replacement)
    assert set(masked) - allowed == set()


@pytest.mark.parametrize("shares", [(0.7, 0.3 - 1e-10, 0.0), (1 - 1e-10, 0.0, 0.0), (0.0, 1 - 1e-10, 0.0)])
def test_rounding_never_causes_a_replacement_with_share_zero(shares: tuple[float, float, float]) -> None:
    to_mask, to_random = _thresholds(0.15, shares, 10)
    assert to_random == 1.0, "a number just below 1 would leave the token unchanged"
    assert shares[1] > 0 or to_mask == to_random, "a number between the two would draw a random token"


def test_an_empty_vocabulary_is_accepted_if_nothing_is_drawn_from_it() -> None:
    assert mask([1, 2, 3], rate=1, replacement=(1, 0, 0), vocabulary=[])[0] == [MASK] * 3
    assert mask([1, 2, 3], rate=0, vocabulary=[])[0] == [1, 2, 3]


def test_rates_and_shares_are_those_of_bert() -> None:
    """Draws are fixed. The bounds are 5 standard deviations (missed by a good generator with probability 6e-7)."""
    n = 200_000
    ids = Ragged.from_lengths(np.full(n, 5), lengths=np.full(2000, 100))
    masked, labels = batch(ids)
    chosen = labels.values != -100
    assert 0.15 * n == pytest.approx(chosen.sum(), abs=5 * np.sqrt(n * 0.15 * 0.85))
    m = chosen.sum()
    counts = [(masked.values[chosen] == MASK).sum(), (masked.values[chosen] >= 1000).sum()]
    for count, share in zip(counts, (0.8, 0.1), strict=True):
        assert share * m == pytest.approx(count, abs=5 * np.sqrt(m * share * (1 - share)))
    random = masked.values[masked.values >= 1000]
    assert stats.chisquare(np.bincount(random - 1000, minlength=100)).pvalue > 1e-4


def test_words_are_chosen_whole_and_end_at_special_tokens_gaps_and_rows() -> None:
    word_ids = [None, 0, 0, 1, None, 1, 1, 2, 0, 0, 2]
    special = [True, *[False] * 6, True, *[False] * 3]
    words = [{1, 2}, {3}, {5, 6}, {8, 9}, {10}]
    seen = set()
    for example in range(400):
        _, labels = mask(list(range(11)), special=special, word_ids=word_ids, rate=0.4, example=example)
        chosen = {i for i, label in enumerate(labels) if label != -100}
        parts = [word for word in words if word & chosen]
        assert set().union(*parts) == chosen
        seen.add(tuple(sorted(chosen)))
    assert 2 ** len(words) == len(seen), "every subset of the words should come up: they are chosen independently"


def test_a_token_without_a_word_is_never_chosen_with_whole_words() -> None:
    assert mask([5, 6, 7], word_ids=[None, 0, None], rate=1)[1] == [-100, 6, -100]


def test_the_draw_depends_on_seed_epoch_and_example_and_nothing_else() -> None:
    ids = list(range(300))
    first = mask(ids)
    for change in ({"seed": 43}, {"epoch": 1}, {"example": 8}):
        assert mask(ids, **change) != first
    assert mask(ids) == first
    chosen = [label != -100 for label in first[1]]
    assert [label != -100 for label in mask(ids[:100])[1]] == chosen[:100], "longer text changes the draws before it"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": -0.1}, "rate is -0.1"),
        ({"rate": 1.5}, "rate is 1.5"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"replacement": (0.8, 0.1)}, r"replacement is \(0.8, 0.1\)"),
        ({"replacement": (0.8, 0.1, 0.2)}, r"replacement is \(0.8, 0.1, 0.2\)"),
        ({"replacement": (1.1, -0.1, 0.0)}, "replacement is"),
        ({"replacement": (float("nan"), 0.5, 0.5)}, "replacement is"),
        ({"vocabulary": []}, "vocabulary is empty"),
        ({"special": [False]}, "special has length 1, input_ids 3"),
        ({"special": [False], "word_ids": [0, 0, 0]}, "special has length 1, input_ids 3"),
        ({"word_ids": [0, 1]}, "word_ids has length 2, input_ids 3"),
    ],
)
def test_mask_tokens_and_its_batched_version_refuse_invalid_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mask([1, 2, 3], **change)
    with pytest.raises(ValueError, match=("row 1: " if "length" in message else "") + message):
        batch(
            Ragged.from_lists([[], [1, 2, 3]]),
            **{key: Ragged.from_lists([[], value]) if "ids" in key or key == "special" else value
               for key, value in change.items()},
        )  # fmt: skip


def test_batches_with_different_numbers_of_rows_are_refused() -> None:
    ids = Ragged.from_lists([[1], [2]])
    with pytest.raises(ValueError, match="special has 1 rows where 2 are expected"):
        batch(ids, special=Ragged.from_lists([[0]]))
    with pytest.raises(ValueError, match="3 examples for 2 rows"):
        batch(ids, examples=[1, 2, 3])


def batch(input_ids: Ragged, **options: Any) -> tuple[Ragged, Ragged]:
    arguments: dict[str, Any] = {
        "special": input_ids.with_values(np.zeros_like(input_ids.values)),
        "mask_id": MASK,
        "vocabulary": VOCABULARY,
        "seed": 42,
        "epoch": 0,
        "examples": np.arange(len(input_ids)),
    }
    return mask_tokens_batch(input_ids, **arguments | options)


@pytest.mark.parametrize("whole_words", [False, True])
def test_mask_tokens_batch_equals_mask_tokens_for_any_order_and_size_of_the_batch(whole_words: bool) -> None:
    random = np.random.default_rng(5)
    sizes = random.integers(0, 20, size=300)
    ids = [random.integers(0, 99, size=size).tolist() for size in sizes]
    special = [(random.random(size) < 0.2).tolist() for size in sizes]
    words = [[None if i < 0 else i for i in random.integers(-1, 2, size=size).tolist()] for size in sizes]
    examples = [int(example) for example in random.permutation(300) * 10**16]
    options: dict[str, Any] = {"rate": 0.4, "replacement": (0.5, 0.3, 0.2), "seed": -3, "epoch": 2**70}
    plain = [
        mask(ids[i], special=special[i], word_ids=words[i] if whole_words else None, example=examples[i], **options)
        for i in range(300)
    ]
    for rows in (range(300), random.permutation(300)[:17], [3], []):
        masked, labels = batch(
            Ragged.from_lists([ids[i] for i in rows]),
            special=Ragged.from_lists([special[i] for i in rows]),
            word_ids=Ragged.from_lists([words[i] for i in rows]) if whole_words else None,
            examples=[examples[i] for i in rows],
            **options,
        )
        assert list(zip(masked.to_lists(), labels.to_lists(), strict=True)) == [plain[i] for i in rows]


def test_masking_does_not_change_its_input_or_share_memory_with_it() -> None:
    ids = Ragged.from_lists([[1, 2, 3]])
    for result in batch(ids, rate=1):
        result.values[:] = 77
        result.offsets[:] = 0
    assert ids.to_lists() == [[1, 2, 3]]
    plain = [1, 2, 3]
    mask(plain, rate=1)
    assert plain == [1, 2, 3]
