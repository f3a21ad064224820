"""Strategies for `align_labels` and `merge_labels`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from touchstone.properties import oracles
from touchstone.properties.domain import supported_values
from touchstone.properties.strategies.defaults import without_defaults
from touchstone.properties.strategies.tags import (
    TYPES,
    any_tags,
    label_names,
    misspelt_names,
    mostly_iob2,
    type_names,
    valid_tags,
    word_lists,
)
from touchstone.properties.tokenizer_families import FAMILIES, encode
from touchstone.stages.ragged import Ragged


@dataclass(frozen=True)
class Alignment:
    """Arguments of `align_labels`, and where they came from.

    Attributes:
        origin: the tokens and their tokenizer, empty if the word ids are made up.
    """

    names: list[str]
    labels: list[int]
    word_ids: list[int | None]
    scheme: str
    strategy: str
    sequence_ids: list[int | None] | None = None
    sequence: int = 0
    origin: str = ""
    brief: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `align_labels`."""
        return without_defaults({"strategy": self.strategy, **self.merging}, brief=self.brief)

    @property
    def merging(self) -> dict[str, Any]:
        """Keyword arguments of `merge_labels`, without `n_words`."""
        arguments: dict[str, Any] = {"word_ids": self.word_ids, "names": self.names, "scheme": self.scheme}
        if self.sequence_ids is not None:
            arguments |= {"sequence_ids": self.sequence_ids, "sequence": self.sequence}
        return without_defaults(arguments, brief=self.brief)

    @property
    def tags(self) -> list[str]:
        return [self.names[label] for label in self.labels]

    @property
    def ours(self) -> list[bool]:
        """(T,) True where a token belongs to a word of this sequence."""
        if self.sequence_ids is None:
            return [word is not None for word in self.word_ids]
        return [
            word is not None and sequence == self.sequence
            for word, sequence in zip(self.word_ids, self.sequence_ids, strict=True)
        ]

    @property
    def spans(self) -> dict[int, tuple[int, int]]:
        """First and last token of each word that has tokens."""
        return oracles.first_and_last(self.word_ids, among=self.ours)

    @property
    def remarks(self) -> dict[str, str]:
        return {"word tags": " ".join(self.tags), **({"tokens": self.origin} if self.origin else {})}

    def named(self, labels: Sequence[int]) -> list[str]:
        """Return the names of label ids: `-` for -100, `?` for an unknown id."""
        known = {oracles.IGNORED: "-", **dict(enumerate(self.names))}
        return [known.get(label, "?") for label in labels]

    def with_(self, **changes: Any) -> Alignment:
        return replace(self, **changes)

    def with_token(self, word: int | None) -> Alignment:
        """Append a token: of this word of the sequence, or a special one (`None`)."""
        sequence_ids = self.sequence_ids
        if sequence_ids is not None:
            sequence_ids = [*sequence_ids, None if word is None else self.sequence]
        return replace(self, word_ids=[*self.word_ids, word], sequence_ids=sequence_ids)


@st.composite
def made_up_word_ids(draw: DrawFn, n_words: int, *, complete: bool = False) -> list[int | None]:
    """Word ids without a tokenizer: 0 to 4 tokens a word (`complete`: 1 to 4), with or without special tokens."""
    sizes = st.integers(1, 4) if complete else st.sampled_from([1, 2, 3, 0, 4])
    counts = draw(st.lists(sizes, min_size=n_words, max_size=n_words))
    ids = [word for word, count in enumerate(counts) for _ in range(count)]
    return [*[None] * draw(st.integers(0, 1)), *ids, *[None] * draw(st.integers(0, 3))]


@st.composite
def alignments(
    draw: DrawFn,
    *,
    valid: bool = False,
    complete: bool = False,
    strategy: str | None = None,
    min_words: int = 0,
    among: Sequence[str] = TYPES,
) -> Alignment:
    """One sentence, tokenized by a tokenizer trained here or with made-up word ids.

    Args:
        valid: the tags of the words are valid in the scheme.
        complete: every word has at least one token.
        min_words: has no effect with `valid`.
        among: the entity types.
    """
    scheme = draw(mostly_iob2)
    strategy = strategy or draw(supported_values("strategy", ["all", "first", "all"]))
    family = draw(st.sampled_from([None, *FAMILIES, None, None, None]))
    types = draw(type_names(among=among))
    tags = draw(valid_tags(types, scheme=scheme) if valid else any_tags(types, scheme=scheme, min_size=min_words))
    names = draw(label_names(types, scheme=scheme))
    labels = [names.index(tag) for tag in tags]
    if family is None:
        word_ids = draw(made_up_word_ids(len(labels), complete=complete))
        return Alignment(names, labels, word_ids, scheme, strategy, brief=draw(st.booleans()))
    words = draw(word_lists(min_size=len(labels), max_size=len(labels)))
    limit = draw(st.sampled_from([None, 8, 3]))
    if complete:  # the tokenizer may drop a word: replace it
        kept = encode(family, words).word_ids
        words, limit = tuple(word if index in kept else "a" for index, word in enumerate(words)), None
    encoded = encode(family, words, max_tokens=limit)
    return Alignment(names, labels, list(encoded.word_ids), scheme, strategy, origin=encoded.shown)


@st.composite
def pair_alignments(draw: DrawFn) -> Alignment:
    """Two sequences whose word ids both start at 0, with or without special tokens between them."""
    case, sequence = draw(alignments()), draw(st.integers(0, 1))
    family = draw(st.sampled_from([None, *FAMILIES, None, None]))
    if family is not None:
        size = len(case.labels)
        own, other = draw(word_lists(min_size=size, max_size=size)), draw(word_lists(max_size=3))
        pair = (own, other) if sequence == 0 else (other, own)
        encoded = encode(family, *pair, max_tokens=draw(st.sampled_from([None, 12, 5])))  # up to four are special
        word_ids, sequence_ids = list(encoded.word_ids), list(encoded.sequence_ids)
        return case.with_(
            word_ids=word_ids, sequence_ids=sequence_ids, sequence=sequence, origin=encoded.shown, brief=False
        )
    sizes = draw(st.lists(st.integers(1, 3), max_size=3))
    mine = [word for word in case.word_ids if word is not None]
    theirs = [word for word, size in enumerate(sizes) for _ in range(size)]
    parts = [(mine, sequence), (theirs, 1 - sequence)][:: 1 if sequence == 0 else -1]
    gap: list[int | None] = [None] * draw(st.integers(0, 2))  # without a gap the two sequences touch
    word_ids = [None, *parts[0][0], *gap, *parts[1][0], None]
    sequence_ids = [None, *[parts[0][1]] * len(parts[0][0]), *gap, *[parts[1][1]] * len(parts[1][0]), None]
    return case.with_(word_ids=word_ids, sequence_ids=sequence_ids, sequence=sequence, origin="", brief=False)


def sentences_and_pairs() -> SearchStrategy[Alignment]:
    """One sentence or a pair of sequences."""
    return alignments() | pair_alignments()


def token_labels(case: Alignment) -> SearchStrategy[list[int]]:
    """Any label ids for the tokens of a case, and -100."""
    labels = range(len(case.names))
    size = len(case.word_ids)
    return st.lists(st.sampled_from([*labels, oracles.IGNORED, *labels]), min_size=size, max_size=size)


@st.composite
def predictions(draw: DrawFn) -> tuple[Alignment, list[int]]:
    """A sentence or a pair, and labels that a model could predict for its tokens."""
    case = draw(sentences_and_pairs())
    return case, draw(token_labels(case))


@st.composite
def alignment_batches(draw: DrawFn, *, min_size: int = 0) -> list[Alignment]:
    """Up to four sentences with the same names, scheme and strategy."""
    scheme, types = draw(mostly_iob2), draw(type_names())
    names = draw(label_names(types, scheme=scheme))
    strategy = draw(supported_values("strategy", ["all", "first"]))
    sequence = draw(st.sampled_from([None, 0, None, 1]))
    cases = []
    for tags in draw(st.lists(any_tags(types, scheme=scheme, max_size=5), min_size=min_size, max_size=4)):
        labels = [names.index(tag) for tag in tags]
        case = Alignment(names, labels, draw(made_up_word_ids(len(labels))), scheme, strategy)
        if sequence is not None:
            other = [0] * draw(st.integers(0, 2))
            own = [None if word is None else sequence for word in case.word_ids]
            case = case.with_(
                word_ids=[*case.word_ids, *other],
                sequence_ids=[*own, *[1 - sequence] * len(other)],
                sequence=sequence,
            )
        cases.append(case)
    return cases


@st.composite
def misspelt_alignments(draw: DrawFn) -> tuple[Alignment, int]:
    """A sentence with a name that is not a tag of its scheme, and the index of that name."""
    case = draw(alignments())
    names, index = draw(misspelt_names(case.names, scheme=case.scheme))
    return case.with_(names=names, labels=[names.index(tag) for tag in case.tags]), index


def shared_arguments(cases: Sequence[Alignment]) -> dict[str, Any]:
    """Return the arguments of the batched versions, with word ids and sequence ids as ragged arrays."""
    first = cases[0]
    arguments: dict[str, Any] = {"word_ids": Ragged.from_lists([case.word_ids for case in cases])}
    arguments |= {"names": first.names, "scheme": first.scheme}
    if first.sequence_ids is not None:
        sequence_ids = Ragged.from_lists([case.sequence_ids or [] for case in cases])
        arguments |= {"sequence_ids": sequence_ids, "sequence": first.sequence}
    return arguments
