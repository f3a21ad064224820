"""Cases for `chunk_documents`, `causal_labels` and `key_token_weights`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis.strategies import SearchStrategy

from touchstone.properties.strategies.choices import Choices, drawn
from touchstone.properties.strategies.defaults import without_defaults

EOS = 0
"""The end-of-text token of all cases. Id 0 on purpose: an implementation may not ask whether an id is true."""


@dataclass(frozen=True)
class Texts:
    """Arguments of `chunk_documents`. Each token says where it came from: no two are the same, and none is `EOS`."""

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
        """The tokens that are left, in order."""
        if self.remainder == "join":
            return self.joined[: len(self.joined) // self.length * self.length]
        kept = (
            document if self.remainder == "keep" else document[: len(document) // self.length * self.length]
            for document in self.documents
        )
        return [token for document in kept for token in document]

    def with_(self, **changes: Any) -> Texts:
        return replace(self, **changes)


def texts_of(choose: Choices, *, remainder: str | None = None, min_documents: int = 0) -> Texts:
    remainder = remainder or choose.of(["drop", "keep", "join"])
    length, brief = choose.between(1, 6), choose.flip()
    sizes = [
        choose.of((0, choose.between(0, 14), length * choose.between(1, 2))) for _ in choose.several(min_documents, 6)
    ]
    tokens = iter(range(100, 100 + sum(sizes)))
    return Texts([[next(tokens) for _ in range(size)] for size in sizes], length, remainder, brief)


def texts(*, remainder: str | None = None, min_documents: int = 0) -> SearchStrategy[Texts]:
    """Up to six documents of 0 to 14 tokens, many of them a multiple of the length (1 to 6) long."""
    return drawn(lambda choose: texts_of(choose, remainder=remainder, min_documents=min_documents))


def texts_in_two(*, remainder: str | None = None) -> SearchStrategy[tuple[Texts, int]]:
    """Documents, and how many of them the first of two calls gets."""

    def build(choose: Choices) -> tuple[Texts, int]:
        case = texts_of(choose, remainder=remainder, min_documents=1)
        return case, choose.between(0, len(case.documents))

    return drawn(build)


@dataclass(frozen=True)
class PaddedIds:
    """Arguments of `causal_labels`: `pad_id` stands where the mask is 0, and may stand among the tokens too."""

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


def padded_ids_of(choose: Choices, *, ends: bool = False) -> PaddedIds:
    width, pad_id, left = choose.between(1, 8), choose.of((0, 2, 50256)), choose.flip()
    ids, masks = [], []
    for _ in choose.several(1, 4):
        size = choose.between(1 if ends else 0, width)
        tokens = [choose.of((3, 4, 5, 6, 7, pad_id, 1)) for _ in range(size)]
        if ends:
            tokens[-1] = pad_id
        fill, real = [pad_id] * (width - size), [1] * size
        ids.append([*fill, *tokens] if left else [*tokens, *fill])
        masks.append([*([0] * len(fill)), *real] if left else [*real, *([0] * len(fill))])
    return PaddedIds(ids, masks, pad_id)


def padded_ids(*, ends: bool = False) -> SearchStrategy[PaddedIds]:
    """One to four rows of 1 to 8, padded on either side by the end-of-text id, which also occurs in the text.

    Args:
        ends: every row has a token, and its last one is a real end of text.
    """
    return drawn(lambda choose: padded_ids_of(choose, ends=ends))


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
        """How many tokens of each row are key tokens, counted one by one."""
        return [sum(1 for token in row if token in self.key_ids) for row in self.input_ids]

    def with_(self, **changes: Any) -> Weighed:
        return replace(self, **changes)


def weighed_of(choose: Choices) -> Weighed:
    width, brief = choose.between(1, 8), choose.flip()
    rows = [[choose.below(9) for _ in range(width)] for _ in choose.several(1, 4)]
    keys = [choose.below(11) for _ in choose.several(0, 5)]  # some stand twice, some in no row
    return Weighed(rows, keys, choose.of((1.0, 0.5, 2.0, 0.0)), brief)


def weighed() -> SearchStrategy[Weighed]:
    """One to four rows of 1 to 8 small ids, up to five key ids, an alpha whose products are exact."""
    return drawn(weighed_of)
