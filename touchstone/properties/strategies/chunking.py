"""Strategies for cutting documents into chunks: `chunk`, `chunk_batches`, and `chunk_documents` with its labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from touchstone.properties.domain import supported_values
from touchstone.properties.strategies.defaults import without_defaults

Columns = dict[str, list[list[int | None]]]

PAD = {"input_ids": -7, "attention_mask": 0, "labels": -100, "word_ids": None, "position": -1}
"""A fill for each column. No fill occurs among the values."""
COLUMNS = ((), ("attention_mask",), ("labels", "attention_mask"), ("position", "labels"))


@dataclass(frozen=True)
class Documents:
    """Arguments of `chunk`. Each cell, except those of `word_ids`, identifies its column and its place."""

    columns: Columns
    length: int
    tail: str
    brief: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        pad = {"pad": {name: PAD[name] for name in self.columns}} if self.tail == "pad" else {}
        return {"length": self.length, **without_defaults({"tail": self.tail}, brief=self.brief), **pad}

    @property
    def lengths(self) -> list[int]:
        return [len(document) for document in next(iter(self.columns.values()))]

    @property
    def total(self) -> int:
        return sum(self.lengths)

    def with_(self, **changes: Any) -> Documents:
        return replace(self, **changes)


@st.composite
def word_ids_of_document(draw: DrawFn, length: int) -> list[int | None]:
    """Word ids with or without a special token at either end, and with words that the tokenizer dropped."""
    word, first, last = draw(st.integers(0, 2)), draw(st.booleans()), draw(st.booleans())
    ids: list[int | None] = []
    for step in draw(st.lists(st.sampled_from((0, 1, 0, 1, 3)), min_size=length, max_size=length)):
        ids.append(word)
        word += step
    if ids and first:
        ids[0] = None
    if ids and last:
        ids[-1] = None
    return ids


@st.composite
def documents(draw: DrawFn, *, tail: str | None = None, words: bool | None = None, min_documents: int = 0) -> Documents:
    """Up to seven documents of 0 to 9 tokens in one to four columns, and a chunk length of 1 to 7.

    Args:
        words: whether there is a column `word_ids`; `None` for either.
    """
    tail = tail or draw(supported_values("tail", ["drop", "keep", "pad"]))
    length, names = draw(st.integers(1, 7)), draw(st.sampled_from(COLUMNS))
    size = st.sampled_from((0, *range(10), *range(1, 10)))
    lengths = draw(st.lists(size, min_size=min_documents, max_size=7))
    columns: Columns = {}
    for number, name in enumerate(("input_ids", *names)):
        values = iter(range(1000 * (number + 1), 1000 * (number + 1) + sum(lengths)))
        columns[name] = [[next(values) for _ in range(size)] for size in lengths]
    if draw(st.booleans()) if words is None else words:
        columns["word_ids"] = [draw(word_ids_of_document(size)) for size in lengths]
    return Documents(columns, length, tail, draw(st.booleans()))


@st.composite
def spread_documents(draw: DrawFn) -> tuple[Documents, list[Columns]]:
    """Documents, and the same documents in one to four batches, some of them empty."""
    case = draw(documents())
    count = len(case.lengths)
    edges = sorted([0, *draw(st.lists(st.integers(0, count), max_size=3)), count])
    return case, [{name: column[a:b] for name, column in case.columns.items()} for a, b in pairwise(edges)]


# Causal language modelling --------------------------------------------------------------------------------------------

EOS = 0
"""The end-of-text token of all cases. It is 0 to catch code that tests the truth of an id."""


@dataclass(frozen=True)
class Texts:
    """Arguments of `chunk_documents`. All tokens are different, and none is `EOS`."""

    documents: list[list[int]]
    length: int
    remainder: str
    brief: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        given = {"remainder": self.remainder, "eos_id": EOS if self.remainder == "join" else None}
        return {"length": self.length, **without_defaults(given, brief=self.brief)}

    @property
    def joined(self) -> list[int]:
        """All documents in a row, each followed by `EOS`."""
        return [token for document in self.documents for token in [*document, EOS]]

    @property
    def expected(self) -> list[int]:
        """The tokens that the chunks must contain, in order."""
        if self.remainder == "join":
            return self.joined[: len(self.joined) // self.length * self.length]
        kept = (
            document if self.remainder == "keep" else document[: len(document) // self.length * self.length]
            for document in self.documents
        )
        return [token for document in kept for token in document]

    def with_(self, **changes: Any) -> Texts:
        return replace(self, **changes)


@st.composite
def texts(draw: DrawFn, *, remainder: str | None = None, min_documents: int = 0) -> Texts:
    """Up to six documents of 0 to 14 tokens. The length of many is a multiple of the chunk length (1 to 6)."""
    remainder = remainder or draw(supported_values("remainder", ["drop", "keep", "join"]))
    length = draw(st.integers(1, 6))
    size = st.sampled_from((0, length, 2 * length)) | st.integers(0, 14)
    sizes = draw(st.lists(size, min_size=min_documents, max_size=6))
    tokens = iter(range(100, 100 + sum(sizes)))
    return Texts([[next(tokens) for _ in range(size)] for size in sizes], length, remainder, draw(st.booleans()))


@st.composite
def texts_in_two(draw: DrawFn, *, remainder: str | None = None) -> tuple[Texts, int]:
    """Documents, and the number of them that the first of two calls gets."""
    case = draw(texts(remainder=remainder, min_documents=1))
    return case, draw(st.integers(0, len(case.documents)))


@dataclass(frozen=True)
class PaddedIds:
    """Arguments of `causal_labels`. `pad_id` fills the places where the mask is 0, and may also be a real token."""

    input_ids: list[list[int]]
    attention_mask: list[list[int]]
    pad_id: int

    @property
    def arguments(self) -> dict[str, Any]:
        return {"attention_mask": self.attention_mask}

    @property
    def expected(self) -> list[list[int]]:
        return [
            [token if real else -100 for token, real in zip(ids, mask, strict=True)]
            for ids, mask in zip(self.input_ids, self.attention_mask, strict=True)
        ]


@st.composite
def padded_ids(draw: DrawFn, *, ends: bool = False) -> PaddedIds:
    """One to four rows of 1 to 8, padded on either side with the end-of-text id, which also occurs in the text.

    Args:
        ends: every row has a token, and the last one is a real end of text.
    """
    width, pad_id, left = draw(st.integers(1, 8)), draw(st.sampled_from((0, 2, 50256))), draw(st.booleans())
    token = st.sampled_from((3, 4, 5, 6, 7, pad_id, 1))
    ids, masks = [], []
    for size in draw(st.lists(st.integers(int(ends), width), min_size=1, max_size=4)):
        tokens = draw(st.lists(token, min_size=size, max_size=size))
        if ends:
            tokens[-1] = pad_id
        fill, real = [pad_id] * (width - size), [1] * size
        ids.append([*fill, *tokens] if left else [*tokens, *fill])
        masks.append([*([0] * len(fill)), *real] if left else [*real, *([0] * len(fill))])
    return PaddedIds(ids, masks, pad_id)


@dataclass(frozen=True)
class Weighed:
    """Arguments of `key_token_weights`."""

    input_ids: list[list[int]]
    key_ids: list[int]
    alpha: float
    brief: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        return {"key_ids": self.key_ids, **without_defaults({"alpha": self.alpha}, brief=self.brief)}

    @property
    def places(self) -> list[int]:
        """The number of key tokens in each row, counted one by one."""
        return [sum(1 for token in row if token in self.key_ids) for row in self.input_ids]

    def with_(self, **changes: Any) -> Weighed:
        return replace(self, **changes)


@st.composite
def weighed(draw: DrawFn) -> Weighed:
    """One to four rows of 1 to 8 small ids, up to five key ids, and an alpha whose products are exact.

    Some key ids are listed twice, some occur in no row.
    """
    width = draw(st.integers(1, 8))
    row = st.lists(st.integers(0, 8), min_size=width, max_size=width)
    rows = draw(st.lists(row, min_size=1, max_size=4))
    keys = draw(st.lists(st.integers(0, 10), max_size=5))
    return Weighed(rows, keys, draw(st.sampled_from((1.0, 0.5, 2.0, 0.0))), draw(st.booleans()))
