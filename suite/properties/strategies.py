"""What the checks are fed: small strategies, each with one job, tested in `tests/test_strategies.py`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from suite.properties import rules
from suite.properties.tokenizer_families import FAMILIES, encode
from suite.properties.values import Spelled

DEFAULTS = {
    "strategy": "all", "scheme": "IOB2", "tail": "drop", "rate": 0.15, "replacement": (0.8, 0.1, 0.1),
    "side": "right", "multiple_of": None, "length": None, "mode": "strict",
}  # fmt: skip
"""What the contract's signatures say. A `brief` case leaves such an argument out, as most callers do."""


def without_defaults(arguments: dict[str, Any], *, brief: bool) -> dict[str, Any]:
    return {
        name: value for name, value in arguments.items() if not (brief and name in DEFAULTS and value == DEFAULTS[name])
    }


# --- text ------------------------------------------------------------------------------------------------------------

AWKWARD_WORDS = (
    "a", "I", "the", "the", "unaffable", "don't", "3.14", "B-52", "Müller-Lüdenscheidt", "Île", "e\u0301\u0323",
    "naïve", "東京", "東京都庁", "ある", "👍", "👩\u200d👩\u200d👧", "שלום", "مرحبا", "\u200f", "\u00a0", "ﷺ",
    "x" * 130, "Donaudampfschifffahrtsgesellschaftskapitän",
)  # fmt: skip
"""One character, very long, emoji, CJK, combining marks, right-to-left, and two that some tokenizers drop whole."""


@st.composite
def word_lists(draw: DrawFn, *, min_size: int = 0, max_size: int = 6) -> tuple[str, ...]:
    """Words as a data set gives them, the empty list and repeated equal neighbours among them."""
    words: list[str] = []
    for code in _codes(draw, min_size, max_size):
        repeats = words and code % 8 == 7
        words.append(words[-1] if repeats else AWKWARD_WORDS[code % len(AWKWARD_WORDS)])
    return tuple(words)


# Building a strategy costs more than drawing from it: lists of choices are drawn as lists of small integers from
# strategies that are built once, and decoded modulo the number of choices. 0 stands for the simplest choice, so that
# shrinking works.
_code = st.integers(0, 5039)


@cache
def _code_lists(min_size: int, max_size: int) -> SearchStrategy[list[int]]:
    return st.lists(_code, min_size=min_size, max_size=max_size)


def _codes(draw: DrawFn, min_size: int, max_size: int) -> list[int]:
    return draw(_code_lists(min_size, max_size))


# --- tags ------------------------------------------------------------------------------------------------------------

TYPES = ("PER", "X", "B-cell", "I-I-O", "O", "S", "L-E", "B", "人名")
"""Names of types, most of them made of what tags are made of."""

schemes: SearchStrategy[str] = st.sampled_from(list(rules.SCHEMES))
modes: SearchStrategy[str] = st.sampled_from(["strict", "lenient"])
label_strategies: SearchStrategy[str] = st.sampled_from(["all", "first"])


@st.composite
def type_names(draw: DrawFn) -> list[str]:
    """One to three types."""
    code = draw(_code)
    return [TYPES[(code // 3 + 2 * step) % len(TYPES)] for step in range(code % 3 + 1)]


@st.composite
def label_names(draw: DrawFn, types: Sequence[str], *, scheme: str) -> list[str]:
    """All tags of the types, in any order of ids: as listed, backwards, by the alphabet, or shuffled."""
    names = rules.tags_of(types, scheme=scheme)
    order = draw(_code)
    if order < 3:
        return [names, names[::-1], sorted(names)][order]
    random.Random(order).shuffle(names)
    return names


@st.composite
def valid_tags(draw: DrawFn, types: Sequence[str], *, scheme: str, max_entities: int = 4) -> list[str]:
    """A sequence the scheme can spell: entities of one to four words, next to each other or with O between."""
    tags: list[str] = []
    for code in _codes(draw, 0, max_entities):
        kind, length = code % (len(types) + 1), code // (len(types) + 1) % 4 + 1
        tags += rules.spell(types[kind - 1], length, scheme=scheme) if kind else ["O"] * min(length, 2)
    return tags


@st.composite
def any_tags(draw: DrawFn, types: Sequence[str], *, scheme: str, size: int | None = None) -> list[str]:
    """Sequences of known tags, most of them ill-formed."""
    tags = rules.tags_of(types, scheme=scheme)
    codes = _codes(draw, 0, 8) if size is None else _codes(draw, size, size)
    return [tags[code % len(tags)] for code in codes]


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
        """Label ids as names, `-` for -100."""
        return ["-" if label == rules.IGNORED else self.names[label] for label in labels]

    def with_(self, **changes: Any) -> Alignment:
        return replace(self, **changes)


@st.composite
def synthetic_word_ids(draw: DrawFn, n_words: int, *, complete: bool) -> list[int | None]:
    """Word ids that no tokenizer had to make: 0 to 4 tokens a word, with or without special tokens at either end."""
    word_ids: list[int | None] = []
    for word, code in enumerate(_codes(draw, n_words, n_words)):
        word_ids += [word] * (1 + code % 4 if complete else (1, 2, 0, 3, 4)[code % 5])
    ends = draw(_code)
    return [*[None] * (ends % 2), *word_ids, *[None] * (ends // 2 % 4)]


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
    tags = draw(valid_tags(types, scheme=scheme) if valid else any_tags(types, scheme=scheme))
    tags = tags or ["O"] * min_words
    labels = [names.index(tag) for tag in tags]
    strategy = strategy or draw(label_strategies)
    family, limit = draw(_families)
    if family is None:
        word_ids = draw(synthetic_word_ids(len(labels), complete=complete))
        return Alignment(names, labels, word_ids, scheme, strategy, brief=len(word_ids) % 2 == 1)
    words = draw(word_lists(min_size=len(labels), max_size=len(labels)))
    if complete:  # a tokenizer may drop a word: put another in its place
        kept = encode(family, words).word_ids
        words, limit = tuple(word if index in kept else "a" for index, word in enumerate(words)), None
    encoded = encode(family, words, max_tokens=limit)
    return Alignment(names, labels, list(encoded.word_ids), scheme, strategy, origin=_origin(family, encoded.tokens))


_families = st.sampled_from(
    [(None, None)] * 2 * len(FAMILIES) + [(family, limit) for family in sorted(FAMILIES) for limit in (None, 3, 8)]
)
"""A tokenizer with the length it cuts to; two times in five none, for made-up word ids."""


def _origin(family: str, tokens: Sequence[str]) -> str:
    return f"{' '.join(tokens)}   ({family})"


@st.composite
def pair_alignments(draw: DrawFn) -> Alignment:
    """Two sequences whose word ids both start at 0, with or without special tokens between them."""
    case = draw(alignments())
    sequence = draw(_code) % 2
    family, limit = draw(_families)
    if family is not None:
        own = draw(word_lists(min_size=len(case.labels), max_size=len(case.labels)))
        other = draw(word_lists(max_size=3))
        pair = (own, other) if sequence == 0 else (other, own)
        encoded = encode(family, *pair, max_tokens=limit and limit + 2)  # a pair has up to four special tokens
        return case.with_(
            word_ids=list(encoded.word_ids),
            sequence_ids=list(encoded.sequence_ids),
            sequence=sequence,
            origin=_origin(family, encoded.tokens),
        )
    shape = draw(_code)
    own_ids = [word for word in case.word_ids if word is not None]
    other_ids = [word for word in range(shape % 4) for _ in range(1 + (shape // 4 + word) % 3)]
    between: list[int | None] = [None] * (shape // 12 % 3)  # none at all: the two sequences touch
    parts = [(own_ids, sequence), (other_ids, 1 - sequence)][:: 1 if sequence == 0 else -1]
    word_ids = [None, *parts[0][0], *between, *parts[1][0], None]
    sequence_ids = [None, *[parts[0][1]] * len(parts[0][0]), *between, *[parts[1][1]] * len(parts[1][0]), None]
    return case.with_(word_ids=word_ids, sequence_ids=sequence_ids, sequence=sequence, origin="")


@st.composite
def token_labels(draw: DrawFn, size: int, *, names: int) -> list[int]:
    """Any label ids, -100 among them."""
    return [rules.IGNORED if code % 4 == 3 else code // 4 % names for code in _codes(draw, size, size)]


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
        tail = without_defaults({"tail": self.tail}, brief=self.total % 2 == 1)
        return {"length": self.length, **tail, **pad}

    @property
    def lengths(self) -> list[int]:
        return [len(document) for document in next(iter(self.columns.values()))]

    @property
    def total(self) -> int:
        return sum(self.lengths)

    def with_(self, **changes: Any) -> Documents:
        return replace(self, **changes)


COLUMNS = ((), ("attention_mask",), ("labels", "attention_mask"), ("position", "labels"))
_tails = st.sampled_from(["drop", "keep", "pad"])


@st.composite
def documents(
    draw: DrawFn, *, tail: str | None = None, words: bool | None = None, min_documents: int = 0, max_documents: int = 5
) -> Documents:
    """Documents of 0 to 9 tokens in one to four columns, chunks of 1 to 7."""
    lengths = [code % 10 for code in _codes(draw, min_documents, max_documents)]
    shape = draw(_code)
    columns: dict[str, list[list[int | None]]] = {}
    for number, name in enumerate(("input_ids", *COLUMNS[shape % 4])):
        values = iter(range(1000 * (number + 1), 1000 * (number + 1) + sum(lengths)))
        columns[name] = [[next(values) for _ in range(length)] for length in lengths]
    if shape // 4 % 2 if words is None else words:
        columns["word_ids"] = [draw(document_word_ids(length)) for length in lengths]
    return Documents(columns, 1 + shape // 8 % 7, tail or draw(_tails))


@st.composite
def document_word_ids(draw: DrawFn, length: int) -> list[int | None]:
    """Word ids of one document, special tokens at its ends or not, some words dropped by the tokenizer."""
    code = draw(_code)
    steps = random.Random(code)
    word = code % 3
    ids: list[int | None] = []
    for _ in range(length):
        ids.append(word)
        word += steps.choice((0, 0, 1, 1, 3))
    if ids and code // 3 % 2:
        ids[0] = None
    if ids and code // 6 % 2:
        ids[-1] = None
    return ids


# --- masking ---------------------------------------------------------------------------------------------------------

seeds: SearchStrategy[int] = st.integers(0, 2**31 - 1)
epochs: SearchStrategy[int] = st.integers(0, 1000)
examples: SearchStrategy[int] = st.integers(0, 10**7)
RATES = (0.15, 0.5, 0.3, 0.85, 0.0, 1.0)
replacements: SearchStrategy[tuple[float, float, float]] = st.sampled_from(
    [(0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.25, 0.25)]
)

MASK_ID = 4
VOCABULARY = Spelled("list(range(1000, 1200, 4))")
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
        shares = {"rate": self.rate, "replacement": self.replacement}
        return {
            "mask_id": MASK_ID,
            "vocabulary": VOCABULARY,
            **without_defaults(shares, brief=self.seed % 2 == 0),
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
    kinds = ["wwwwccccsg"[code % 10] for code in _codes(draw, 0, 14)]
    special = [kind == "s" for kind in kinds]
    shape = draw(_code)
    word_ids: list[int | None] | None = None
    if shape % 2 if whole_words is None else whole_words:
        word, word_ids = 0, []
        for kind in kinds:
            word += kind == "w"  # a new word; c continues, over whatever stands between
            word_ids.append(None if kind == "g" else word)
        if shape // 2 % 2:  # as tokenizers have it: special tokens belong to no word
            word_ids = [None if is_special else word for word, is_special in zip(word_ids, special, strict=True)]
    return Masking(
        input_ids=[10 + position for position in range(len(kinds))],
        special=special,
        word_ids=word_ids,
        rate=RATES[shape // 4 % len(RATES)] if rate is None else rate,
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
        arguments = {"side": self.side, "multiple_of": self.multiple_of, "length": self.length}
        return {"pad_id": self.pad_id, **without_defaults(arguments, brief=len(self.features) % 2 == 1)}

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


OTHERS = ("token_type_ids", "special_tokens_mask", "word_ids", "example", "label")


@st.composite
def batches(draw: DrawFn, *, mask: bool | None = None, labels: bool | None = None, scalars: bool = False) -> Batch:
    """One to four features of 0 to 7 tokens; the padding id occurs in the text, as where pad and end are one id.

    Args:
        mask, labels: whether the features have that column; `None` for either.
        scalars: some columns are one integer a feature.
    """
    codes = _codes(draw, 1, 4)
    lengths = [code % 8 for code in codes]
    shape = draw(_code)
    with_mask = bool(shape % 2) if mask is None else mask
    with_labels = bool(shape // 2 % 2) if labels is None else labels
    others = [name for bit, name in enumerate(OTHERS) if shape // 4 >> bit & 1 and (scalars or bit < 3)]
    pad_id, side = (0, 3, 7)[shape // 128 % 3], draw(sides)
    features: list[Feature] = []
    for row, (size, code) in enumerate(zip(lengths, codes, strict=True)):
        values = random.Random(code)
        ids = [values.randrange(10) for _ in range(size)]
        if not with_mask and ids and ids[-1 if side == "right" else 0] == pad_id:
            ids[-1 if side == "right" else 0] = pad_id + 1
        feature: Feature = {"input_ids": ids}
        if with_mask:
            feature["attention_mask"] = [int(values.randrange(5) > 0) for _ in ids]
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
    code = draw(_code)
    length = None if code % 2 == 0 else max(lengths) + code // 2 % 6
    return Batch(features, pad_id, side, (None, 1, 4, 8)[code // 12 % 4], length)


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
        reading = without_defaults({"scheme": self.scheme, "mode": self.mode}, brief=len(self.references) % 2 == 1)
        return {"references": self.references, "names": self.names, **reading}

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
    for code in _codes(draw, 1, 4):
        well_formed = valid or code % 2 == 0
        tags = draw(valid_tags(types, scheme=scheme, max_entities=3) if well_formed else any_tags(types, scheme=scheme))
        gold = [names.index(tag) for tag in tags]
        changes = random.Random(code)
        predicted = list(gold)
        for _ in range(0 if perfect or not gold else code // 2 % 4):
            predicted[changes.randrange(len(gold))] = changes.randrange(len(names))
        for _ in range(code // 8 % 3 if ignored and gold else 0):
            gold[changes.randrange(len(gold))] = rules.IGNORED
        references.append(gold)
        predictions.append(predicted)
    return Sentences(names, references, predictions, scheme, mode or draw(modes))
