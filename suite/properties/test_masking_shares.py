"""Checks M5-M7 and M11 of docs/contract.md: the shares of `mask_tokens` over thousands of draws."""

from __future__ import annotations

from hypothesis import strategies as st

from touchstone.properties.check import check
from touchstone.properties.failure import Mismatch
from touchstone.properties.oracles import IGNORED, expect_share
from touchstone.properties.strategies.masking import (
    MASK_ID,
    VOCABULARY,
    Masking,
    chosen,
    mask,
    replacements,
    seeds,
    usual_replacement,
)
from touchstone.properties.subject import Subject
from touchstone.properties.values import Spelled

MANY = 10_000
"""Tokens or words per statistical call: a share of 0.1 has a standard error of 0.003 and bounds 0.02 away."""
WORD_SIZES = st.sampled_from([2, 0, 1])
"""Tokens per word in a statistical call, 0 for no words. Two comes first, because most errors show there."""
SHORT = 600
"""Number of calls on a short sequence. They reveal code that always chooses the same number of tokens."""


def long_case(
    seed: int, *, rate: float, replacement: tuple[float, float, float] | None = None, word: int = 0
) -> Masking:
    """Return `MANY` words of `word` tokens each, or `MANY` tokens without words if `word` is 0."""
    size = MANY * max(1, word)
    return Masking(
        input_ids=Spelled(f"[10 + i % 50 for i in range({size})]"),
        special=Spelled(f"[False] * {size}"),
        word_ids=Spelled(f"[i // {word} for i in range({size})]") if word else None,
        rate=rate,
        replacement=replacement or usual_replacement(),
        seed=seed,
        epoch=0,
        example=0,
    )


def short_cases(seed: int, *, size: int, rate: float) -> list[Masking]:
    """Return `SHORT` examples of `size` one-token words each."""
    case = Masking(list(range(10, 10 + size)), [False] * size, None, rate, usual_replacement(), seed, 0, 0)
    return [case.with_(example=number) for number in range(SHORT)]


@check("M5", needs="mask_tokens", cost=15, seed=seeds, rate=st.sampled_from([0.15, 0.4, 0.75]), word=WORD_SIZES)
def test_the_chosen_share_must_be_the_rate(implementation: Subject, seed: int, rate: float, word: int) -> None:
    _, labels = mask(implementation, long_case(seed, rate=rate, word=word))
    hits = len(chosen(labels))
    expect_share(hits // max(1, word), n=MANY, probability=rate, of="words chosen" if word else "tokens chosen")


@check("M5", needs="mask_tokens", cost=15, seed=seeds, rate=st.sampled_from([0.15, 0.5]), size=st.integers(1, 4))
def test_the_chosen_share_of_short_sequences_must_be_the_rate(
    implementation: Subject, seed: int, rate: float, size: int
) -> None:
    hits = sum(len(chosen(mask(implementation, case)[1])) for case in short_cases(seed, size=size, rate=rate))
    expect_share(hits, n=SHORT * size, probability=rate, of=f"tokens chosen, in {SHORT} sequences of {size}")


@check("M6", needs="mask_tokens", cost=15, seed=seeds, replacement=replacements)
def test_mask_random_and_unchanged_tokens_must_have_their_shares(
    implementation: Subject, seed: int, replacement: tuple[float, float, float]
) -> None:
    case = long_case(seed, rate=1.0, replacement=replacement)
    masked, _ = mask(implementation, case)
    hidden = sum(token == MASK_ID for token in masked)
    kept = sum(token == original for token, original in zip(masked, case.input_ids, strict=True))
    counts = (hidden, MANY - hidden - kept, kept)  # original tokens, mask and vocabulary are disjoint
    for name, count, share in zip(("mask", "random", "unchanged"), counts, replacement, strict=True):
        expect_share(count, n=MANY, probability=share, of=f"chosen tokens that became {name}")


@check("M6", needs="mask_tokens", cost=15, seed=seeds, first=st.sampled_from([MASK_ID, 0]))
def test_the_replacement_must_be_drawn_for_each_token_of_a_word(implementation: Subject, seed: int, first: int) -> None:
    case = long_case(seed, rate=1.0, replacement=(0.5, 0.0, 0.5), word=2)
    masked, _ = mask(implementation, case)
    same = sum((masked[position] == MASK_ID) == (masked[position + 1] == MASK_ID) for position in range(0, 2 * MANY, 2))
    expect_share(same, n=MANY, probability=0.5, of="words whose two tokens had the same fate")


@check("M7", needs="mask_tokens", cost=15, seed=seeds, word=st.integers(0, 2))
def test_random_tokens_must_come_from_the_whole_vocabulary_and_only_from_it(
    implementation: Subject, seed: int, word: int
) -> None:
    case = long_case(seed, rate=1.0, replacement=(0.0, 1.0, 0.0), word=word)
    masked, _ = mask(implementation, case)
    known = set(VOCABULARY)
    strange = [position for position, token in enumerate(masked) if token not in known]
    if strange:
        came = f"{masked[strange[0]]} at position {strange[0]}, {len(strange)} such"
        raise Mismatch(expected="only ids of the vocabulary", came=came)
    for token in VOCABULARY:
        expect_share(
            masked.count(token), n=len(masked), probability=1 / len(VOCABULARY), of=f"random tokens that are {token}"
        )


@check("M11", needs="mask_tokens", cost=15, seed=seeds, rate=st.sampled_from([0.3, 0.5, 0.7]), word=WORD_SIZES)
def test_neighbouring_words_must_be_chosen_independently(
    implementation: Subject, seed: int, rate: float, word: int
) -> None:
    _, labels = mask(implementation, long_case(seed, rate=rate, word=word))
    hits = [label != IGNORED for label in labels[:: max(1, word)]]
    for distance in (1, 2):  # pairs that have no word in common
        starts = [start for start in range(MANY - distance) if start // distance % 2 == 0]
        both = sum(hits[start] and hits[start + distance] for start in starts)
        of = f"pairs of words at distance {distance} that are both chosen"
        expect_share(both, n=len(starts), probability=rate**2, of=of)


@check("M11", needs="mask_tokens", cost=15, seed=seeds, size=st.integers(2, 3))
def test_words_of_short_sequences_must_be_chosen_independently(implementation: Subject, seed: int, size: int) -> None:
    counts = [len(chosen(mask(implementation, case)[1])) for case in short_cases(seed, size=size, rate=0.5)]
    for number, extreme in ((0, "none"), (size, "all")):
        of = f"sequences of {size} tokens with {extreme} chosen"
        expect_share(counts.count(number), n=SHORT, probability=0.5**size, of=of)


@check("M11", needs="mask_tokens", cost=15, seed=seeds)
def test_words_of_neighbouring_examples_must_be_chosen_independently(implementation: Subject, seed: int) -> None:
    hits = [bool(chosen(mask(implementation, case)[1])) for case in short_cases(seed, size=1, rate=0.5)]
    agree = sum(one == two for one, two in zip(hits[::2], hits[1::2], strict=True))
    expect_share(agree, n=SHORT // 2, probability=0.5, of="pairs of neighbouring examples with the same draw")
