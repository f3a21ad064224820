"""Words, types of entities, and tags."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from touchstone.properties import rules
from touchstone.properties.strategies.choices import Choices, drawn

AWKWARD_WORDS = (
    "a", "I", "the", "unaffable", "don't", "3.14", "B-52", "Müller-Lüdenscheidt", "Île", "e\u0301\u0323", "naïve",
    "東京", "東京都庁", "ある", "👍", "👩\u200d👩\u200d👧", "שלום", "مرحبا", "ﷺ", "\u200f", "\u00a0", "x" * 130,
    "Donaudampfschifffahrtsgesellschaftskapitän",
)  # fmt: skip
"""One character, very long, emoji, CJK, combining marks, right-to-left, and two that some tokenizers drop whole."""

TYPES = ("PER", "B-X", "X", "B-cell", "I-I-O", "O", "S", "L-E", "B", "人名")
"""Names of types, most of them made of what tags are made of."""
TREACHEROUS_TYPES = ("B-X", "B-cell", "I-I-O", "L-E", "B-S-U")
"""Those that a careless search for a prefix or for a hyphen takes apart."""

schemes: SearchStrategy[str] = st.sampled_from(list(rules.SCHEMES))
OFTEN_IOB2 = ("IOB2", "IOBES", "IOB2", "BILOU")
"""The scheme that nearly everybody uses comes up half the time."""

modes: SearchStrategy[str] = st.sampled_from(["strict", "lenient"])


def words(choose: Choices, *, size: int) -> tuple[str, ...]:
    """Awkward words, repeated equal neighbours among them."""
    result: list[str] = []
    for _ in range(size):
        repeat = result and choose.below(6) == 5
        result.append(result[-1] if repeat else choose.of(AWKWARD_WORDS))
    return tuple(result)


def word_lists(*, max_size: int = 8) -> SearchStrategy[tuple[str, ...]]:
    """Words as a data set gives them, the empty list among them."""
    return drawn(lambda choose: words(choose, size=choose.between(0, max_size)))


def type_names(choose: Choices, *, among: Sequence[str] = TYPES) -> list[str]:
    """One to three types."""
    first, count = choose.below(len(among)), choose.between(1, 3)
    return [among[(first + step) % len(among)] for step in range(count)]


def label_names(choose: Choices, types: Sequence[str], *, scheme: str) -> list[str]:
    """All tags of the types in any order of ids: as listed, backwards, by the alphabet, or shuffled."""
    names = rules.tags_of(types, scheme=scheme)
    order = choose.below(8)
    return [names, names[::-1], sorted(names)][order] if order < 3 else choose.shuffled(names)


def valid_tags(choose: Choices, types: Sequence[str], *, scheme: str, max_entities: int = 4) -> list[str]:
    """A sequence the scheme can spell: entities of one to four words, next to each other or with O between."""
    tags: list[str] = []
    for _ in choose.several(0, max_entities):
        kind, length = choose.of([None, *types, *types]), choose.between(1, 4)
        tags += ["O"] * min(length, 2) if kind is None else rules.spell(kind, length, scheme=scheme)
    return tags


def any_tags(choose: Choices, types: Sequence[str], *, scheme: str, least: int = 0, most: int = 8) -> list[str]:
    """A sequence of known tags, most likely ill-formed, one in three as the one before."""
    tags = rules.tags_of(types, scheme=scheme)
    result: list[str] = []
    for _ in choose.several(least, most):
        result.append(result[-1] if result and choose.below(3) == 2 else choose.of(tags))
    return result


def misspelt_names(choose: Choices, names: Sequence[str], *, scheme: str) -> tuple[list[str], int]:
    """Names with one more somewhere among them that is not a tag of the scheme, and where it is."""
    index = choose.between(0, len(names))
    foreign = [f"{prefix}-PER" for prefix in "BIESLU" if prefix not in rules.SCHEMES[scheme]]
    bad = choose.of(["0", *foreign, "o", "PER", "X-PER", "B_PER", "b-PER"])  # a digit 0 for the letter O is a classic
    return [*names[:index], bad, *names[index:]], index
