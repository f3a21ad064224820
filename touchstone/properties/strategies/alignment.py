"""Cases for `align_labels` and `merge_labels`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis.strategies import SearchStrategy

from touchstone.properties import rules
from touchstone.properties.strategies.choices import Choices, drawn
from touchstone.properties.strategies.defaults import without_defaults
from touchstone.properties.strategies.text import (
    OFTEN_IOB2,
    TYPES,
    any_tags,
    label_names,
    misspelt_names,
    type_names,
    valid_tags,
    words,
)
from touchstone.properties.tokenizer_families import FAMILIES, encode
from touchstone.stages.ragged import Ragged


@dataclass(frozen=True)
class Alignment:
    """Arguments of `align_labels`, and where they came from."""

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
        """Keyword arguments of `merge_labels`, `n_words` left out."""
        arguments: dict[str, Any] = {"word_ids": self.word_ids, "names": self.names, "scheme": self.scheme}
        if self.sequence_ids is not None:
            arguments |= {"sequence_ids": self.sequence_ids, "sequence": self.sequence}
        return without_defaults(arguments, brief=self.brief)

    @property
    def tags(self) -> list[str]:
        return [self.names[label] for label in self.labels]

    @property
    def ours(self) -> list[bool]:
        """(T,) whether a token stands for a word of this sequence."""
        if self.sequence_ids is None:
            return [word is not None for word in self.word_ids]
        return [
            word is not None and sequence == self.sequence
            for word, sequence in zip(self.word_ids, self.sequence_ids, strict=True)
        ]

    @property
    def spans(self) -> dict[int, tuple[int, int]]:
        """Word to its first and last token, words without tokens left out."""
        return rules.first_and_last(self.word_ids, among=self.ours)

    @property
    def remarks(self) -> dict[str, str]:
        return {"word tags": " ".join(self.tags), **({"tokens": self.origin} if self.origin else {})}

    def named(self, labels: Sequence[int]) -> list[str]:
        """Label ids as names, `-` for -100, `?` for what is no id."""
        known = {rules.IGNORED: "-", **dict(enumerate(self.names))}
        return [known.get(label, "?") for label in labels]

    def with_(self, **changes: Any) -> Alignment:
        return replace(self, **changes)

    def with_token(self, word: int | None) -> Alignment:
        """One more token at the end, of a word of this sequence or special."""
        sequence_ids = self.sequence_ids
        if sequence_ids is not None:
            sequence_ids = [*sequence_ids, None if word is None else self.sequence]
        return replace(self, word_ids=[*self.word_ids, word], sequence_ids=sequence_ids)


def pieces(choose: Choices, n_words: int, *, complete: bool = False) -> list[int | None]:
    """Word ids that no tokenizer had to make: 0 to 4 tokens a word, with or without special tokens at either end."""
    ids: list[int | None] = []
    for word in range(n_words):
        ids += [word] * (choose.between(1, 4) if complete else choose.of((1, 2, 3, 0, 4)))
    return [*[None] * choose.below(2), *ids, *[None] * choose.below(4)]


def alignment(
    choose: Choices,
    *,
    valid: bool = False,
    complete: bool = False,
    strategy: str | None = None,
    min_words: int = 0,
    among: Sequence[str] = TYPES,
) -> Alignment:
    scheme = choose.of(OFTEN_IOB2)
    strategy = strategy or choose.of(["all", "first", "all"])
    family = choose.of([None, *FAMILIES, None, None, None])
    types = type_names(choose, among=among)
    if valid:
        tags = valid_tags(choose, types, scheme=scheme)
    else:
        tags = any_tags(choose, types, scheme=scheme, least=min_words)
    names = label_names(choose, types, scheme=scheme)
    labels = [names.index(tag) for tag in tags]
    if family is None:
        word_ids = pieces(choose, len(labels), complete=complete)
        return Alignment(names, labels, word_ids, scheme, strategy, brief=choose.flip())
    sentence, limit = words(choose, size=len(labels)), choose.of([None, 8, 3])
    if complete:  # a tokenizer may drop a word: put another in its place
        kept = encode(family, sentence).word_ids
        sentence, limit = tuple(word if index in kept else "a" for index, word in enumerate(sentence)), None
    encoded = encode(family, sentence, max_tokens=limit)
    return Alignment(names, labels, list(encoded.word_ids), scheme, strategy, origin=encoded.shown)


def alignments(
    *, valid: bool = False, complete: bool = False, strategy: str | None = None, min_words: int = 0
) -> SearchStrategy[Alignment]:
    """One sentence, from a tokenizer trained here or with word ids made up.

    Args:
        valid: the words' tags are a sequence the scheme can spell.
        complete: every word has at least one token.
        min_words: only where the tags are not `valid`.
    """
    return drawn(
        lambda choose: alignment(choose, valid=valid, complete=complete, strategy=strategy, min_words=min_words)
    )


def pair_alignment(choose: Choices) -> Alignment:
    sequence = choose.below(2)
    family, between = choose.of([None, *FAMILIES, None, None]), choose.below(3)
    case = alignment(choose)
    if family is not None:
        own, other = words(choose, size=len(case.labels)), words(choose, size=choose.between(0, 3))
        pair = (own, other) if sequence == 0 else (other, own)
        encoded = encode(family, *pair, max_tokens=choose.of([None, 12, 5]))  # four of them may be special
        word_ids, sequence_ids = list(encoded.word_ids), list(encoded.sequence_ids)
        return case.with_(
            word_ids=word_ids, sequence_ids=sequence_ids, sequence=sequence, origin=encoded.shown, brief=False
        )
    mine = [word for word in case.word_ids if word is not None]
    theirs = [word for word in range(choose.between(0, 3)) for _ in range(choose.between(1, 3))]
    parts = [(mine, sequence), (theirs, 1 - sequence)][:: 1 if sequence == 0 else -1]
    gap: list[int | None] = [None] * between  # none at all: the two sequences touch
    word_ids = [None, *parts[0][0], *gap, *parts[1][0], None]
    sequence_ids = [None, *[parts[0][1]] * len(parts[0][0]), *gap, *[parts[1][1]] * len(parts[1][0]), None]
    return case.with_(word_ids=word_ids, sequence_ids=sequence_ids, sequence=sequence, origin="", brief=False)


def pair_alignments() -> SearchStrategy[Alignment]:
    """Two sequences whose word ids both start at 0, with or without special tokens between them."""
    return drawn(pair_alignment)


def sentence_or_pair(choose: Choices) -> Alignment:
    return alignment(choose) if choose.below(3) < 2 else pair_alignment(choose)


def sentences_and_pairs() -> SearchStrategy[Alignment]:
    return drawn(sentence_or_pair)


def token_labels(choose: Choices, case: Alignment) -> list[int]:
    """Any label ids for the tokens of a case, -100 among them."""
    labels = range(len(case.names))
    return [choose.of([*labels, rules.IGNORED, *labels]) for _ in case.word_ids]


def predictions() -> SearchStrategy[tuple[Alignment, list[int]]]:
    """A sentence or a pair, and what a model might say about its tokens."""

    def build(choose: Choices) -> tuple[Alignment, list[int]]:
        case = sentence_or_pair(choose)
        return case, token_labels(choose, case)

    return drawn(build)


def alignment_batch(choose: Choices, *, min_size: int = 0) -> list[Alignment]:
    scheme = choose.of(OFTEN_IOB2)
    types = type_names(choose)
    names = label_names(choose, types, scheme=scheme)
    strategy, sequence = choose.of(["all", "first"]), choose.of([None, 0, None, 1])
    cases = []
    for _ in choose.several(min_size, 4):
        labels = [names.index(tag) for tag in any_tags(choose, types, scheme=scheme, most=5)]
        case = Alignment(names, labels, pieces(choose, len(labels)), scheme, strategy)
        if sequence is not None:
            other = [0] * choose.below(3)
            own = [None if word is None else sequence for word in case.word_ids]
            case = case.with_(
                word_ids=[*case.word_ids, *other],
                sequence_ids=[*own, *[1 - sequence] * len(other)],
                sequence=sequence,
            )
        cases.append(case)
    return cases


def alignment_batches(*, min_size: int = 0) -> SearchStrategy[list[Alignment]]:
    """Up to four sentences that share names, scheme and strategy."""
    return drawn(lambda choose: alignment_batch(choose, min_size=min_size))


def misspelt_alignment(choose: Choices) -> tuple[Alignment, int]:
    """One of whose names is no tag of its scheme, and that name's index."""
    case = alignment(choose)
    names, index = misspelt_names(choose, case.names, scheme=case.scheme)
    return case.with_(names=names, labels=[names.index(tag) for tag in case.tags]), index


def shared_arguments(cases: Sequence[Alignment]) -> dict[str, Any]:
    """What the twins take for the whole batch, word ids and sequence ids as ragged arrays."""
    first = cases[0]
    arguments: dict[str, Any] = {"word_ids": Ragged.from_lists([case.word_ids for case in cases])}
    arguments |= {"names": first.names, "scheme": first.scheme}
    if first.sequence_ids is not None:
        sequence_ids = Ragged.from_lists([case.sequence_ids or [] for case in cases])
        arguments |= {"sequence_ids": sequence_ids, "sequence": first.sequence}
    return arguments
