"""Strategies for words, entity types and tags, and for the sentences that `score_entities` compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations
from typing import Any, TypeVar

from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from touchstone.properties import oracles
from touchstone.properties.domain import stated_values, supported_values
from touchstone.properties.strategies.defaults import without_defaults

T = TypeVar("T")

AWKWARD_WORDS = (
    "a", "I", "the", "unaffable", "don't", "3.14", "B-52", "Müller-Lüdenscheidt", "Île", "e\u0301\u0323", "naïve",
    "東京", "東京都庁", "ある", "👍", "👩\u200d👩\u200d👧", "שלום", "مرحبا", "ﷺ", "\u200f", "\u00a0", "x" * 130,
    "Donaudampfschifffahrtsgesellschaftskapitän",
)  # fmt: skip
"""One character, very long, emoji, CJK, combining marks, right-to-left, and two that some tokenizers drop entirely."""

TYPES = ("PER", "B-X", "X", "B-cell", "I-I-O", "O", "S", "L-E", "B", "人名")
"""Names of entity types. Most of them look like parts of a tag."""
TREACHEROUS_TYPES = ("B-X", "B-cell", "I-I-O", "L-E", "B-S-U")
"""Types that code splits wrongly if it searches for a prefix or a hyphen carelessly."""

schemes: SearchStrategy[str] = supported_values("scheme", list(oracles.SCHEMES))
mostly_iob2: SearchStrategy[str] = supported_values("scheme", ["IOB2", "IOBES", "IOB2", "BILOU"])
"""Half of the draws are the scheme that nearly everybody uses."""
modes: SearchStrategy[str] = supported_values("mode", ["strict", "lenient"])


def with_repeats(values: Sequence[T], *, repeats: int, min_size: int, max_size: int) -> SearchStrategy[list[T]]:
    """Lists of `values` in which an item often equals the one before.

    Args:
        repeats: weight of "the same as before"; each value has weight 1.
    """

    def resolve(indices: list[int]) -> list[T]:
        result: list[T] = []
        for index in indices:
            result.append(values[index] if index < len(values) else result[-1] if result else values[0])
        return result

    return st.lists(st.integers(0, len(values) + repeats - 1), min_size=min_size, max_size=max_size).map(resolve)


def word_lists(*, min_size: int = 0, max_size: int = 8) -> SearchStrategy[tuple[str, ...]]:
    """Awkward words as a data set would contain them, with equal neighbours; also the empty list."""
    return with_repeats(AWKWARD_WORDS, repeats=4, min_size=min_size, max_size=max_size).map(tuple)


@st.composite
def type_names(draw: DrawFn, *, among: Sequence[str] = TYPES) -> list[str]:
    """One to three different types, in any order; those of the names that the functions under test support."""
    if among is TYPES and (stated := stated_values("names")):
        return sorted({oracles.split_tag(name)[1] for name in stated[0]} - {""})
    return list(draw(_selections(tuple(among))))


@cache
def _selections(values: tuple[str, ...]) -> SearchStrategy[tuple[str, ...]]:
    # Drawn from a list of all selections: `st.lists(unique=True)` takes a tenth of the time of a check with tags.
    return st.one_of([st.sampled_from(list(permutations(values, size))) for size in (1, 2, 3)])


@st.composite
def label_names(draw: DrawFn, types: Sequence[str], *, scheme: str) -> list[str]:
    """All tags of the types, in any order of ids: as listed, backwards, alphabetical, or shuffled.

    If the functions under test support only certain names, these.
    """
    if stated := stated_values("names"):
        if {oracles.split_tag(name)[1] for name in stated[0]} - {""} != {*types}:
            reject()  # the case is about other types
        return list(stated[0])
    names = oracles.tags_of(types, scheme=scheme)
    return list(draw(st.sampled_from([names, names[::-1], sorted(names)]) | st.permutations(names)))


def valid_tags(types: Sequence[str], *, scheme: str, max_entities: int = 4) -> SearchStrategy[list[str]]:
    """Tag sequences that are valid in the scheme: entities of one to four words, adjacent or with O between them."""

    def spell(parts: list[tuple[str | None, int]]) -> list[str]:
        tags: list[str] = []
        for kind, length in parts:
            tags += ["O"] * min(length, 2) if kind is None else oracles.spell(kind, length, scheme=scheme)
        return tags

    part = st.tuples(st.sampled_from([None, *types, *types]), st.integers(1, 4))
    return st.lists(part, max_size=max_entities).map(spell)


def any_tags(types: Sequence[str], *, scheme: str, min_size: int = 0, max_size: int = 8) -> SearchStrategy[list[str]]:
    """Sequences of known tags. Most are invalid; about one tag in three repeats the one before."""
    tags = oracles.tags_of(types, scheme=scheme)
    return with_repeats(tags, repeats=len(tags) // 2, min_size=min_size, max_size=max_size)


@st.composite
def misspelt_names(draw: DrawFn, names: Sequence[str], *, scheme: str) -> tuple[list[str], int]:
    """The names with one inserted that is not a tag of the scheme, and its index."""
    index = draw(st.integers(0, len(names)))
    foreign = [f"{prefix}-PER" for prefix in "BIESLU" if prefix not in oracles.SCHEMES[scheme]]
    # The digit 0 instead of the letter O is a common mistake.
    bad = draw(st.sampled_from(["0", *foreign, "o", "PER", "X-PER", "B_PER", "b-PER"]))
    return [*names[:index], bad, *names[index:]], index


# Sentences to score ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sentences:
    """Arguments of `score_entities`."""

    names: list[str]
    references: list[list[int]]
    predictions: list[list[int]]
    scheme: str
    mode: str
    brief: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        reading = without_defaults({"scheme": self.scheme, "mode": self.mode}, brief=self.brief)
        return {"references": self.references, "names": self.names, **reading}

    @property
    def remarks(self) -> dict[str, str]:
        """The sentences as tags."""
        known = {oracles.IGNORED: "-", **dict(enumerate(self.names))}
        rows = {"gold": self.references, "predicted": self.predictions}
        return {
            name: " | ".join(" ".join(known.get(label, "?") for label in row) or "(empty)" for row in sentences)
            for name, sentences in rows.items()
        }

    def entities(self, which: str) -> set[tuple[int, oracles.Entity]]:
        """Return (sentence, entity) of `references` or `predictions`, without the ignored positions."""
        found = set()
        for number, (reference, row) in enumerate(zip(self.references, getattr(self, which), strict=True)):
            tags = [self.names[b] for a, b in zip(reference, row, strict=True) if a != oracles.IGNORED]
            found |= {(number, entity) for entity in oracles.entities(tags, scheme=self.scheme, mode=self.mode)}
        return found

    def with_(self, **changes: Any) -> Sentences:
        return replace(self, **changes)


@st.composite
def scored_sentences(
    draw: DrawFn, *, mode: str | None = None, valid: bool = False, perfect: bool = False, ignored: bool = True
) -> Sentences:
    """One to five sentences with predictions, some right and some nearly right. Half of the references are invalid.

    At least one word has a label, so that there is something to score.

    Args:
        valid: all references are valid in the scheme.
        perfect: the predictions equal the references.
        ignored: some references are -100.
    """
    scheme, mode = draw(schemes), mode or draw(modes)
    types = draw(type_names())
    names = draw(label_names(types, scheme=scheme))
    tags = valid_tags(types, scheme=scheme, max_entities=3)
    if not valid:
        tags |= any_tags(types, scheme=scheme)
    references, predictions = [], []
    for sentence in draw(st.lists(tags, min_size=1, max_size=4)):
        gold = [names.index(tag) for tag in sentence]
        predicted = list(gold)
        if gold:
            place, label = st.integers(0, len(gold) - 1), st.integers(0, len(names) - 1)
            for at, other in [] if perfect else draw(st.lists(st.tuples(place, label), max_size=3)):
                predicted[at] = other
            for at in draw(st.lists(place, max_size=2)) if ignored else []:
                gold[at] = oracles.IGNORED
        references.append(gold)
        predictions.append(predicted)
    if all(label == oracles.IGNORED for gold in references for label in gold):
        references.append([names.index("O")])
        predictions.append([names.index("O")])
    return Sentences(names, references, predictions, scheme, mode, draw(st.booleans()))
