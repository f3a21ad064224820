"""Cases for `mask_tokens`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from touchstone.properties.rules import IGNORED
from touchstone.properties.strategies.choices import Choices, drawn
from touchstone.properties.strategies.defaults import without_defaults
from touchstone.properties.subject import Subject
from touchstone.properties.values import Spelled

MASK_ID = 4
VOCABULARY = Spelled("list(range(1000, 1200, 4))")
"""Fifty ids with gaps between them, none of which is an original token, the mask or a special token."""

BERT = (0.8, 0.1, 0.1)
RATES = (0.15, 0.5, 0.3, 0.85, 0.0, 1.0)
REPLACEMENTS = (BERT, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.25, 0.25))

seeds: SearchStrategy[int] = st.integers(0, 2**31 - 1)
replacements: SearchStrategy[tuple[float, float, float]] = st.sampled_from(REPLACEMENTS)


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


def masking(choose: Choices, *, whole_words: bool | None = None, rate: float | None = None) -> Masking:
    with_words = choose.flip() if whole_words is None else whole_words
    wordless = choose.flip()
    kinds = [choose.of("wwwwccccsg") for _ in choose.several(0, 16)]
    special = [kind == "s" for kind in kinds]
    word_ids: list[int | None] | None = None
    if with_words:
        word, word_ids = 0, []
        for kind in kinds:
            word += kind == "w"  # a new word; c continues, over whatever stands between
            word_ids.append(None if kind == "g" or (wordless and kind == "s") else word)
    return Masking(
        input_ids=[10 + position for position in range(len(kinds))],
        special=special,
        word_ids=word_ids,
        rate=choose.of(RATES) if rate is None else rate,
        replacement=choose.of(REPLACEMENTS),
        seed=choose.below(256),
        epoch=choose.below(4),
        example=choose.below(256),
        brief=choose.flip(),
    )


def maskings(*, whole_words: bool | None = None, rate: float | None = None) -> SearchStrategy[Masking]:
    """Up to 16 tokens: special ones anywhere (with a word id or without), words that a special token or a token without
    a word cuts, word ids that come again."""
    return drawn(lambda choose: masking(choose, whole_words=whole_words, rate=rate))


def masking_batches() -> SearchStrategy[list[Masking]]:
    """Up to five rows that share everything but their tokens and their example."""

    def build(choose: Choices) -> list[Masking]:
        whole_words = choose.flip()
        cases = [masking(choose, whole_words=whole_words, rate=0.5) for _ in choose.several(0, 5)]
        shared = {name: getattr(case, name) for case in cases[:1] for name in ("replacement", "seed", "epoch", "brief")}
        return [case.with_(**shared) for case in cases]

    return drawn(build)


Triple = tuple[int, int, int]


def _neighbours(choose: Choices) -> tuple[Triple, Triple]:
    seed, epoch, example = (choose.below(256) * scale + choose.below(256) for scale in (2**22, 1, 2**14))
    place = choose.below(3)
    return (seed, epoch, example), (seed + (place == 0), epoch + (place == 1), example + (place == 2))


def _confusable(choose: Choices) -> tuple[Triple, Triple]:
    kind = choose.below(4)
    a, b, c = choose.between(0, 12), choose.between(1, 12), choose.between(0, 12)
    many = 10 ** choose.between(1, 6)
    if kind == 0:  # an epoch taken for many examples
        return (a, 1, 0), (a, 0, many)
    if kind == 1:  # a seed taken for many examples
        return (a + 1, 0, 0), (a, 0, many)
    if kind == 2:  # the same sum
        return (a, b, c), (a + b, 0, c)
    return (a, b, c + 13), (c + 13, a, b)  # the same numbers in other places


neighbouring_draws: SearchStrategy[tuple[Triple, Triple]] = drawn(_neighbours)
"""Two (seed, epoch, example) that differ by one in one of the three."""

confusable_draws: SearchStrategy[tuple[Triple, Triple]] = drawn(_confusable)
"""Two different (seed, epoch, example) that a careless mixture takes for each other."""


def mask(implementation: Subject, case: Masking) -> tuple[list[int], list[int]]:
    pair: tuple[list[int], list[int]] = implementation.mask_tokens(case.input_ids, **case.arguments)
    return pair


def chosen(labels: Sequence[int]) -> list[int]:
    return [position for position, label in enumerate(labels) if label != IGNORED]
