"""What the checks are fed: small strategies, each with one job, tested in `tests/test_strategies.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from suite.properties import rules
from suite.properties.tokenizer_families import FAMILIES, encode

# --- text ------------------------------------------------------------------------------------------------------------

AWKWARD_WORDS = (
    "a", "I", "the", "the", "unaffable", "don't", "3.14", "B-52", "Müller-Lüdenscheidt", "Île", "e\u0301\u0323",
    "naïve", "東京", "東京都庁", "ある", "👍", "👩\u200d👩\u200d👧", "שלום", "مرحبا", "\u200f", "\u00a0", "ﷺ", "x" * 130,
    "Donaudampfschifffahrtsgesellschaftskapitän",
)  # fmt: skip
"""One character, very long, emoji, CJK, combining marks, right-to-left, and two that some tokenizers drop whole."""


@st.composite
def word_lists(draw: DrawFn, *, max_size: int = 6) -> tuple[str, ...]:
    """Words as a data set gives them, the empty list and repeated neighbours among them."""
    words: list[str] = []
    for word in draw(st.lists(st.sampled_from(AWKWARD_WORDS), max_size=max_size)):
        words += [word] * (2 if draw(st.integers(0, 7)) == 7 else 1)
    return tuple(words[:max_size])


# --- tags ------------------------------------------------------------------------------------------------------------

TYPES = ("PER", "X", "B-cell", "I-I-O", "O", "S", "L-E", "B", "人名")
"""Names of types, most of them made of what tags are made of."""

schemes: SearchStrategy[str] = st.sampled_from(sorted(rules.SCHEMES))
modes: SearchStrategy[str] = st.sampled_from(["strict", "lenient"])
label_strategies: SearchStrategy[str] = st.sampled_from(["all", "first"])


@st.composite
def type_names(draw: DrawFn) -> list[str]:
    """One to three types."""
    first = draw(st.integers(0, len(TYPES) - 1))
    count = draw(st.integers(1, 3))
    return [TYPES[(first + step * 2) % len(TYPES)] for step in range(count)]


def label_names(types: Sequence[str], *, scheme: str) -> SearchStrategy[list[str]]:
    """All tags of the types, in any order of ids."""
    return st.permutations(rules.tags_of(types, scheme=scheme))


@st.composite
def valid_tags(draw: DrawFn, types: Sequence[str], *, scheme: str, max_entities: int = 4) -> list[str]:
    """A sequence the scheme can spell: entities of one to four words, next to each other or with O between."""
    tags: list[str] = []
    segments = st.tuples(st.sampled_from([None, *types]), st.integers(1, 4))
    for kind, length in draw(st.lists(segments, max_size=max_entities)):
        tags += ["O"] * min(length, 2) if kind is None else rules.spell(kind, length, scheme=scheme)
    return tags


def any_tags(names: Sequence[str], *, size: int | None = None) -> SearchStrategy[list[str]]:
    """Sequences of known tags, most of them ill-formed."""
    return st.lists(st.sampled_from(names), min_size=size or 0, max_size=8 if size is None else size)


# --- alignment -------------------------------------------------------------------------------------------------------


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

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `align_labels`."""
        return {"strategy": self.strategy, **self.merging}

    @property
    def merging(self) -> dict[str, Any]:
        """Keyword arguments of `merge_labels`, `n_words` left out."""
        arguments: dict[str, Any] = {"word_ids": self.word_ids, "names": self.names, "scheme": self.scheme}
        if self.sequence_ids is not None:
            arguments |= {"sequence_ids": self.sequence_ids, "sequence": self.sequence}
        return arguments

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
        return {"words": self.origin} if self.origin else {}

    def named(self, labels: Sequence[int]) -> list[str]:
        """Label ids as names, `-` for -100."""
        return ["-" if label == rules.IGNORED else self.names[label] for label in labels]

    def with_(self, **changes: Any) -> Alignment:
        return replace(self, **changes)


@st.composite
def synthetic_word_ids(draw: DrawFn, n_words: int, *, complete: bool) -> list[int | None]:
    """Word ids that no tokenizer had to make: 0 to 4 tokens a word, with or without special tokens at either end."""
    pieces = st.integers(1 if complete else 0, 4)
    word_ids: list[int | None] = [word for word in range(n_words) for _ in range(draw(pieces))]
    start, end = draw(st.tuples(st.integers(0, 1), st.integers(0, 3)))
    return [*[None] * start, *word_ids, *[None] * end]


@st.composite
def alignments(
    draw: DrawFn, *, valid: bool = False, complete: bool = False, strategy: str | None = None, min_words: int = 0
) -> Alignment:
    """One sentence, from a tokenizer trained here or with word ids made up.

    Args:
        valid: the words' tags are a sequence the scheme can spell.
        complete: every word has at least one token.
    """
    scheme = draw(schemes)
    types = draw(type_names())
    names = draw(label_names(types, scheme=scheme))
    tags = draw(valid_tags(types, scheme=scheme) if valid else any_tags(names))
    tags = tags or ["O"] * min_words
    labels = [names.index(tag) for tag in tags]
    strategy = strategy or draw(label_strategies)
    if draw(st.integers(0, 2)) < 2:
        word_ids = draw(synthetic_word_ids(len(labels), complete=complete))
        return Alignment(names, labels, word_ids, scheme, strategy)
    family = draw(st.sampled_from(sorted(FAMILIES)))
    words = tuple(draw(st.lists(st.sampled_from(AWKWARD_WORDS), min_size=len(labels), max_size=len(labels))))
    limit = None if complete else draw(st.sampled_from([None, 3, 8]))
    encoded = encode(family, words, max_tokens=limit)
    if complete:  # a tokenizer may drop a word: leave it out of the sentence too
        words = tuple(word if index in encoded.word_ids else "a" for index, word in enumerate(words))
        encoded = encode(family, words)
    return Alignment(names, labels, list(encoded.word_ids), scheme, strategy, origin=_origin(family, encoded.tokens))


def _origin(family: str, tokens: Sequence[str]) -> str:
    return f"{' '.join(tokens)}   ({family})"


@st.composite
def pair_alignments(draw: DrawFn) -> Alignment:
    """Two sequences whose word ids both start at 0, with or without special tokens between them."""
    case = draw(alignments())
    sequence = draw(st.integers(0, 1))
    if draw(st.booleans()):
        family = draw(st.sampled_from(sorted(FAMILIES)))
        own = tuple(draw(st.lists(st.sampled_from(AWKWARD_WORDS), min_size=len(case.labels), max_size=len(case.labels))))
        other = draw(word_lists(max_size=3))
        encoded = encode(family, *((own, other) if sequence == 0 else (other, own)))
        return case.with_(
            word_ids=list(encoded.word_ids),
            sequence_ids=list(encoded.sequence_ids),
            sequence=sequence,
            origin=_origin(family, encoded.tokens),
        )
    own_ids = [word for word in case.word_ids if word is not None]
    other_ids = [word for word in draw(synthetic_word_ids(draw(st.integers(0, 3)), complete=False)) if word is not None]
    parts = [(own_ids, sequence), (other_ids, 1 - sequence)]
    parts = parts if sequence == 0 else parts[::-1]
    between = [None] * draw(st.integers(0, 2))  # none at all: the two sequences touch
    word_ids = [None, *parts[0][0], *between, *parts[1][0], None]
    sequence_ids = [None, *[parts[0][1]] * len(parts[0][0]), *between, *[parts[1][1]] * len(parts[1][0]), None]
    return case.with_(word_ids=word_ids, sequence_ids=sequence_ids, sequence=sequence, origin="")


def sentences_and_pairs() -> SearchStrategy[Alignment]:
    return st.one_of(alignments(), pair_alignments())


# --- chunking --------------------------------------------------------------------------------------------------------

PAD = {"input_ids": -7, "attention_mask": 0, "labels": -100, "word_ids": None, "position": -1}
"""A fill for each column, none of which is among the values."""


@dataclass(frozen=True)
class Documents:
    """Arguments of `chunk`. Each cell but those of `word_ids` says which column and place it came from."""

    columns: dict[str, list[list[int | None]]]
    length: int
    tail: str

    @property
    def arguments(self) -> dict[str, Any]:
        pad = {"pad": {name: PAD[name] for name in self.columns}} if self.tail == "pad" else {}
        return {"length": self.length, "tail": self.tail, **pad}

    @property
    def lengths(self) -> list[int]:
        return [len(document) for document in next(iter(self.columns.values()))]

    @property
    def total(self) -> int:
        return sum(self.lengths)

    def with_(self, **changes: Any) -> Documents:
        return replace(self, **changes)


@st.composite
def documents(
    draw: DrawFn,
    *,
    tail: str | None = None,
    words: bool | None = None,
    min_documents: int = 0,
    max_length: int = 7,
    max_documents: int = 5,
) -> Documents:
    """Documents of 0 to 9 tokens in one to four columns."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=min_documents, max_size=max_documents))
    others = draw(st.sampled_from([(), ("attention_mask",), ("labels", "attention_mask"), ("position", "labels")]))
    columns: dict[str, list[list[int | None]]] = {}
    for number, name in enumerate(("input_ids", *others)):
        values = iter(range(1000 * (number + 1), 1000 * (number + 1) + sum(lengths)))
        columns[name] = [[next(values) for _ in range(length)] for length in lengths]
    if draw(st.booleans()) if words is None else words:
        columns["word_ids"] = [draw(document_word_ids(length)) for length in lengths]
    return Documents(columns, draw(st.integers(1, max_length)), tail or draw(st.sampled_from(["drop", "keep", "pad"])))


@st.composite
def document_word_ids(draw: DrawFn, length: int) -> list[int | None]:
    """Word ids of one document, special tokens at its ends or not, some words dropped by the tokenizer."""
    word = draw(st.integers(0, 2))
    ids: list[int | None] = []
    for step in draw(st.lists(st.sampled_from([0, 0, 1, 1, 3]), min_size=length, max_size=length)):
        word += step
        ids.append(word)
    ends = draw(st.integers(0, 3)) if length else 0
    if ends & 1:
        ids[0] = None
    if ends & 2:
        ids[-1] = None
    return ids


# --- masking ---------------------------------------------------------------------------------------------------------

seeds: SearchStrategy[int] = st.integers(0, 2**31 - 1)
epochs: SearchStrategy[int] = st.integers(0, 1000)
examples: SearchStrategy[int] = st.integers(0, 10**7)
rates: SearchStrategy[float] = st.sampled_from([0.15, 0.5, 0.3, 0.85, 0.0, 1.0])
replacements: SearchStrategy[tuple[float, float, float]] = st.sampled_from(
    [(0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.25, 0.25)]
)

MASK_ID = 4
VOCABULARY = list(range(1000, 1200, 4))
"""Fifty ids with gaps between them, none of which is an original token, the mask or a special token."""


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

    @property
    def shared(self) -> dict[str, Any]:
        """The arguments that are the same for every example of a batch."""
        return {
            "mask_id": MASK_ID,
            "vocabulary": VOCABULARY,
            "rate": self.rate,
            "replacement": self.replacement,
            "seed": self.seed,
            "epoch": self.epoch,
        }

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
    """A short sequence: special tokens anywhere, words that a special token or a gap cuts, word ids that come again."""
    length = draw(st.integers(0, 14))
    kinds = draw(st.lists(st.sampled_from("wwwwccccsg"), min_size=length, max_size=length))
    special = [kind == "s" for kind in kinds]
    word_ids: list[int | None] | None = None
    if draw(st.booleans()) if whole_words is None else whole_words:
        word, word_ids = 0, []
        for kind in kinds:
            word += kind == "w"  # a new word; c continues, over whatever stands between
            word_ids.append(None if kind == "g" else word)
        if draw(st.booleans()):  # as tokenizers have it: special tokens belong to no word
            word_ids = [None if is_special else word for word, is_special in zip(word_ids, special, strict=True)]
    return Masking(
        input_ids=[10 + position for position in range(length)],
        special=special,
        word_ids=word_ids,
        rate=draw(rates) if rate is None else rate,
        replacement=draw(replacements),
        seed=draw(seeds),
        epoch=draw(epochs),
        example=draw(examples),
    )


# --- collation -------------------------------------------------------------------------------------------------------

Feature = dict[str, Any]
sides: SearchStrategy[str] = st.sampled_from(["right", "left"])
FILLS = {"labels": -100, "attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1, "word_ids": -1}


@dataclass(frozen=True)
class Batch:
    """Arguments of `pad_batch`."""

    features: list[Feature]
    pad_id: int
    side: str
    multiple_of: int | None
    length: int | None

    @property
    def arguments(self) -> dict[str, Any]:
        return {"pad_id": self.pad_id, "side": self.side, "multiple_of": self.multiple_of, "length": self.length}

    @property
    def lengths(self) -> list[int]:
        return [len(feature["input_ids"]) for feature in self.features]

    @property
    def width(self) -> int:
        width = max(self.lengths) if self.length is None else self.length
        return width if self.multiple_of is None else -(-width // self.multiple_of) * self.multiple_of

    def place(self, row: int) -> slice:
        """Where in the padded row the feature's own values stand."""
        size = self.lengths[row]
        return slice(0, size) if self.side == "right" else slice(self.width - size, self.width)

    def with_(self, **changes: Any) -> Batch:
        return replace(self, **changes)


@st.composite
def batches(draw: DrawFn, *, mask: bool | None = None, labels: bool | None = None) -> Batch:
    """One to four features of 0 to 7 tokens; the padding id occurs in the text, as where pad and end are one id."""
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=4))
    with_mask = draw(st.booleans()) if mask is None else mask
    with_labels = draw(st.booleans()) if labels is None else labels
    others = draw(st.sets(st.sampled_from(["token_type_ids", "special_tokens_mask", "word_ids", "example", "label"])))
    pad_id = draw(st.sampled_from([0, 3, 7]))
    side = draw(sides)
    features: list[Feature] = []
    for row, size in enumerate(lengths):
        ids = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
        if not with_mask and ids and ids[-1 if side == "right" else 0] == pad_id:
            ids[-1 if side == "right" else 0] = pad_id + 1
        feature: Feature = {"input_ids": ids}
        if with_mask:
            feature["attention_mask"] = [int(draw(st.integers(0, 4)) > 0) for _ in ids]
        if with_labels:
            feature["labels"] = [-100 if value == 1 else value for value in ids]
        if "token_type_ids" in others:
            feature["token_type_ids"] = [int(position > size // 2) for position in range(size)]
        if "special_tokens_mask" in others:
            feature["special_tokens_mask"] = [int(position in (0, size - 1)) for position in range(size)]
        if "word_ids" in others:
            feature["word_ids"] = [None if position in (0, size - 1) else position // 2 for position in range(size)]
        feature |= {name: 100 * row + len(name) for name in ("example", "label") if name in others}
        features.append(feature)
    length = draw(st.one_of(st.none(), st.integers(max(lengths), max(lengths) + 5)))
    return Batch(features, pad_id, side, draw(st.sampled_from([None, 1, 4, 8])), length)


# --- scoring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sentences:
    """Arguments of `score_entities`."""

    names: list[str]
    references: list[list[int]]
    predictions: list[list[int]]
    scheme: str
    mode: str

    @property
    def arguments(self) -> dict[str, Any]:
        return {"references": self.references, "names": self.names, "scheme": self.scheme, "mode": self.mode}

    def entities(self, which: str) -> set[tuple[int, rules.Entity]]:
        """(sentence, entity) of `references` or `predictions`, positions without a reference left out."""
        found = set()
        for number, (reference, row) in enumerate(zip(self.references, getattr(self, which), strict=True)):
            tags = [self.names[b] for a, b in zip(reference, row, strict=True) if a != rules.IGNORED]
            found |= {(number, entity) for entity in rules.entities(tags, scheme=self.scheme, mode=self.mode)}
        return found

    def with_(self, **changes: Any) -> Sentences:
        return replace(self, **changes)


@st.composite
def scored_sentences(
    draw: DrawFn, *, mode: str | None = None, valid: bool = False, perfect: bool = False, ignored: bool = True
) -> Sentences:
    """One to four sentences with predictions: some right, some nearly, some of random tags.

    Args:
        valid: the references are sequences the scheme can spell.
        perfect: predictions are the references.
        ignored: some references are -100.
    """
    scheme = draw(schemes)
    types = draw(type_names())
    names = draw(label_names(types, scheme=scheme))
    references, predictions = [], []
    for _ in range(draw(st.integers(1, 4))):
        tags = draw(st.one_of(valid_tags(types, scheme=scheme, max_entities=3), any_tags(names)) if not valid
                    else valid_tags(types, scheme=scheme, max_entities=3))  # fmt: skip
        predicted = list(tags)
        if not perfect:
            for _ in range(draw(st.integers(0, 3)) if tags else 0):
                predicted[draw(st.integers(0, len(tags) - 1))] = draw(st.sampled_from(names))
        reference = [names.index(tag) for tag in tags]
        if ignored and draw(st.booleans()):
            hidden = draw(st.sets(st.integers(0, max(0, len(tags) - 1)), max_size=3))
            reference = [rules.IGNORED if index in hidden else label for index, label in enumerate(reference)]
        references.append(reference)
        predictions.append([names.index(tag) for tag in predicted])
    return Sentences(names, references, predictions, scheme, mode or draw(modes))
