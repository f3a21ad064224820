"""Cases for `chunk` and `chunk_batches`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from hypothesis.strategies import SearchStrategy

from touchstone.properties.strategies.choices import Choices, drawn
from touchstone.properties.strategies.defaults import without_defaults

Columns = dict[str, list[list[int | None]]]

PAD = {"input_ids": -7, "attention_mask": 0, "labels": -100, "word_ids": None, "position": -1}
"""A fill for each column, none of which is among the values."""
COLUMNS = ((), ("attention_mask",), ("labels", "attention_mask"), ("position", "labels"))


@dataclass(frozen=True)
class Documents:
    """Arguments of `chunk`. Each cell but those of `word_ids` says which column and place it came from."""

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


def word_ids_of_document(choose: Choices, length: int) -> list[int | None]:
    """Special tokens at either end or not, some words dropped by the tokenizer."""
    word, ends = choose.below(3), choose.below(4)
    ids: list[int | None] = []
    for _ in range(length):
        ids.append(word)
        word += choose.of((0, 1, 0, 1, 3))
    if ids and ends & 1:
        ids[0] = None
    if ids and ends & 2:
        ids[-1] = None
    return ids


def documents_of(
    choose: Choices, *, tail: str | None = None, words: bool | None = None, min_documents: int = 0
) -> Documents:
    tail = tail or choose.of(["drop", "keep", "pad"])
    length, names, brief = choose.between(1, 7), choose.of(COLUMNS), choose.flip()
    with_words = choose.flip() if words is None else words
    lengths = [choose.of((0, choose.between(0, 9), choose.between(1, 9))) for _ in choose.several(min_documents, 7)]
    columns: Columns = {}
    for number, name in enumerate(("input_ids", *names)):
        values = iter(range(1000 * (number + 1), 1000 * (number + 1) + sum(lengths)))
        columns[name] = [[next(values) for _ in range(size)] for size in lengths]
    if with_words:
        columns["word_ids"] = [word_ids_of_document(choose, size) for size in lengths]
    return Documents(columns, length, tail, brief)


def documents(
    *, tail: str | None = None, words: bool | None = None, min_documents: int = 0
) -> SearchStrategy[Documents]:
    """Up to seven documents of 0 to 9 tokens in one to four columns (`words`: with `word_ids`), chunks of 1 to 7."""
    return drawn(lambda choose: documents_of(choose, tail=tail, words=words, min_documents=min_documents))


def spread_documents() -> SearchStrategy[tuple[Documents, list[Columns]]]:
    """Documents, and the same documents over one to four batches, empty ones among them."""

    def build(choose: Choices) -> tuple[Documents, list[Columns]]:
        case = documents_of(choose)
        count = len(case.lengths)
        edges = sorted([0, *(choose.between(0, count) for _ in range(choose.between(0, 3))), count])
        return case, [{name: column[a:b] for name, column in case.columns.items()} for a, b in pairwise(edges)]

    return drawn(build)
