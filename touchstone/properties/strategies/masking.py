"""Strategies for `mask_tokens`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from touchstone.properties.domain import supported, supported_values
from touchstone.properties.oracles import IGNORED
from touchstone.properties.strategies.defaults import without_defaults
from touchstone.properties.subject import Subject
from touchstone.properties.values import Spelled

MASK_ID = 4
VOCABULARY = Spelled("list(range(1000, 1200, 4))")
"""Fifty ids with gaps between them. They contain no original token, no special token and not the mask."""

BERT = (0.8, 0.1, 0.1)
RATES = (0.15, 0.5, 0.3, 0.85, 0.0, 1.0)
REPLACEMENTS = (BERT, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.25, 0.25))

seeds: SearchStrategy[int] = st.integers(0, 2**31 - 1)
replacements: SearchStrategy[tuple[float, float, float]] = supported_values("replacement", REPLACEMENTS)


def usual_replacement() -> tuple[float, float, float]:
    """Return BERT's replacement, or the first one that the functions under test support."""
    return supported("replacement", REPLACEMENTS)[0]


@dataclass(frozen=True)
class Masking:
    """Arguments of `mask_tokens`."""

    input_ids: list[int]
    special: list[bool]
    word_ids: list[int | None] | None
    rate: float
    replacement: tuple[float, float, float]
    seed: int
    epoch: int
    example: int
    brief: bool = False

    @property
    def shared(self) -> dict[str, Any]:
        """The arguments that are the same for every example of a batch."""
        shares = without_defaults({"rate": self.rate, "replacement": self.replacement}, brief=self.brief)
        return {"mask_id": MASK_ID, "vocabulary": VOCABULARY, **shares, "seed": self.seed, "epoch": self.epoch}

    @property
    def arguments(self) -> dict[str, Any]:
        words = {} if self.word_ids is None else {"word_ids": self.word_ids}
        return {"special": self.special, **words, **self.shared, "example": self.example}

    @property
    def words(self) -> list[list[int]]:
        """The positions of each word (without word ids: of each token) that may be chosen."""
        groups: list[list[int]] = []
        ids = list(range(len(self.special))) if self.word_ids is None else self.word_ids
        for position, (word, special) in enumerate(zip(ids, self.special, strict=True)):
            if special or word is None:
                continue
            before = position - 1
            if groups and groups[-1][-1] == before and ids[before] == word and not self.special[before]:
                groups[-1].append(position)
            else:
                groups.append([position])
        return groups

    def with_(self, **changes: Any) -> Masking:
        return replace(self, **changes)


@st.composite
def maskings(draw: DrawFn, *, whole_words: bool | None = None, rate: float | None = None) -> Masking:
    """Up to 16 tokens, some of them special, with or without a word id.

    With `whole_words`, a special token or a token without a word may interrupt a word, and a word id may come again.
    """
    with_words = draw(st.booleans()) if whole_words is None else whole_words
    size = draw(st.integers(0, 16))
    kinds = draw(st.lists(st.sampled_from("wwwwccccsg"), min_size=size, max_size=size))
    word_ids: list[int | None] | None = None
    if with_words:
        special_words = draw(st.booleans())  # special tokens have word ids
        word, word_ids = 0, []
        for kind in kinds:
            word += kind == "w"  # w begins a word, c continues it across whatever is in between
            word_ids.append(None if kind == "g" or (kind == "s" and not special_words) else word)
    return Masking(
        input_ids=[10 + position for position in range(size)],
        special=[kind == "s" for kind in kinds],
        word_ids=word_ids,
        rate=draw(st.sampled_from(RATES)) if rate is None else rate,
        replacement=draw(replacements),
        seed=draw(st.integers(0, 255)),
        epoch=draw(st.integers(0, 3)),
        example=draw(st.integers(0, 255)),
        brief=draw(st.booleans()),
    )


@st.composite
def masking_batches(draw: DrawFn) -> list[Masking]:
    """Up to five rows that share all arguments except their tokens and their example."""
    cases = draw(st.lists(maskings(whole_words=draw(st.booleans()), rate=0.5), max_size=5))
    shared = {name: getattr(case, name) for case in cases[:1] for name in ("replacement", "seed", "epoch", "brief")}
    return [case.with_(**shared) for case in cases]


Triple = tuple[int, int, int]


@st.composite
def neighbouring_draws(draw: DrawFn) -> tuple[Triple, Triple]:
    """Two (seed, epoch, example) that differ by one in one of the three."""
    triple = draw(st.integers(0, 2**30)), draw(st.integers(0, 500)), draw(st.integers(0, 2**22))
    seed, epoch, example = triple
    return triple, draw(
        st.sampled_from([(seed + 1, epoch, example), (seed, epoch + 1, example), (seed, epoch, example + 1)])
    )


@st.composite
def confusable_draws(draw: DrawFn) -> tuple[Triple, Triple]:
    """Two different (seed, epoch, example) that a poor mixture of the three confuses."""
    a, b, c = draw(st.integers(0, 12)), draw(st.integers(1, 12)), draw(st.integers(0, 12))
    many = 10 ** draw(st.integers(1, 6))
    pairs = {
        "an epoch taken for many examples": ((a, 1, 0), (a, 0, many)),
        "a seed taken for many examples": ((a + 1, 0, 0), (a, 0, many)),
        "the same sum": ((a, b, c), (a + b, 0, c)),
        "the same numbers in other places": ((a, b, c + 13), (c + 13, a, b)),
    }
    return pairs[draw(st.sampled_from(list(pairs)))]


def mask(implementation: Subject, case: Masking) -> tuple[list[int], list[int]]:
    """Call `mask_tokens`: masked tokens and labels."""
    pair: tuple[list[int], list[int]] = implementation.mask_tokens(case.input_ids, **case.arguments)
    return pair


def chosen(labels: Sequence[int]) -> list[int]:
    """Return the positions that have a label."""
    return [position for position, label in enumerate(labels) if label != IGNORED]
