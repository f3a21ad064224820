"""Cases for `pack`, `unpack` and `assign_bins`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from hypothesis.strategies import SearchStrategy

from touchstone.properties.strategies.choices import Choices, drawn
from touchstone.properties.strategies.collation import FILLS, SCALARS, Feature
from touchstone.properties.strategies.defaults import without_defaults


@dataclass(frozen=True)
class Packed:
    """Arguments of `pack`, and what must come of them."""

    features: list[Feature]
    pad_id: int
    first_position: int = 0
    multiple_of: int | None = None
    brief: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        given = {"first_position": self.first_position, "multiple_of": self.multiple_of}
        return {"pad_id": self.pad_id, **without_defaults(given, brief=self.brief)}

    @property
    def columns(self) -> list[str]:
        """Those that hold a sequence."""
        return [name for name, value in self.features[0].items() if isinstance(value, list)]

    @property
    def lengths(self) -> list[int]:
        return [len(feature[self.columns[0]]) for feature in self.features]

    @property
    def tokens(self) -> int:
        """Of all rows, without padding."""
        return sum(self.lengths)

    @property
    def padding(self) -> int:
        total = self.tokens
        while self.multiple_of is not None and total % self.multiple_of:
            total += 1
        return total - self.tokens

    @property
    def offsets(self) -> list[int]:
        return list(accumulate([*self.lengths, *([] if self.multiple_of is None else [self.padding])], initial=0))

    def fill(self, name: str) -> int:
        return self.pad_id if name == "input_ids" else FILLS[name]

    def with_(self, **changes: Any) -> Packed:
        return replace(self, **changes)


def packed_of(
    choose: Choices, *, labels: bool | None = None, scalars: bool = False, padded: bool = False, least: int = 0
) -> Packed:
    brief, pad_id, with_labels = choose.flip(), choose.of((0, 1, 7)), choose.flip() if labels is None else labels
    others = [name for name in ("attention_mask", "token_type_ids", "special_tokens_mask", "word_ids") if choose.flip()]
    features: list[Feature] = []
    for row in choose.several(1, 4):
        size = choose.between(max(least, int(padded)), 7)
        feature: Feature = {"input_ids": [choose.below(10) for _ in range(size)]}
        if with_labels:
            feature["labels"] = [choose.of((*range(10), -100)) for _ in range(size)]
        ends = (0, size - 1)
        made = {
            "attention_mask": [1] * size,
            "token_type_ids": [int(place > size // 2) for place in range(size)],
            "special_tokens_mask": [int(place in ends) for place in range(size)],
            "word_ids": [None if place in ends else place // 2 for place in range(size)],
        }
        feature |= {name: made[name] for name in others}
        features.append(feature | {name: 100 * row + len(name) for name in SCALARS if scalars})
    case = Packed(features, pad_id, choose.of((0, 2, 1)), choose.of((None, 8, 1, 5)), brief)
    return case.with_(multiple_of=case.tokens + choose.between(1, 6)) if padded else case


def packed(
    *, labels: bool | None = None, scalars: bool = False, padded: bool = False, least: int = 0
) -> SearchStrategy[Packed]:
    """One to four rows of 0 to 7 tokens; the padding id occurs in the text.

    Args:
        labels: whether rows have labels; `None` for either.
        scalars: some columns are one integer a row.
        padded: the end is padded for certain.
        least: tokens of a row at least.
    """
    return drawn(lambda choose: packed_of(choose, labels=labels, scalars=scalars, padded=padded, least=least))


@dataclass(frozen=True)
class Segments:
    """Arguments of `unpack`, and the rows that must come of them."""

    values: list[Any]
    offsets: list[int]
    rows: int | None
    expected: list[list[Any]]

    @property
    def arguments(self) -> dict[str, Any]:
        return {"offsets": self.offsets} | ({} if self.rows is None else {"rows": self.rows})


def segments_of(choose: Choices, *, least: int = 0) -> Segments:
    deep = choose.flip()
    parts = []
    for _ in choose.several(least, 5):
        numbers = [choose.below(9) for _ in range(choose.between(0, 5))]
        parts.append([[n / 2, float(-n)] if deep else n for n in numbers])
    rows = choose.below(len(parts) + 1) if choose.flip() else None
    values = [value for part in parts for value in part]
    return Segments(values, list(accumulate(map(len, parts), initial=0)), rows, parts if rows is None else parts[:rows])


def segments(*, least: int = 0) -> SearchStrategy[Segments]:
    """Up to five segments of 0 to 5 integers or pairs of numbers, all of them rows or some of them behind the rows."""
    return drawn(lambda choose: segments_of(choose, least=least))


@dataclass(frozen=True)
class Lengths:
    """Arguments of `assign_bins`."""

    lengths: list[int]
    capacity: int

    @property
    def arguments(self) -> dict[str, Any]:
        return {"capacity": self.capacity}

    @property
    def expected(self) -> list[list[int]]:
        """Bins by the rule: whose turn it is looks at one bin after the other, each counted anew."""
        bins: list[list[int]] = []
        for number in sorted(range(len(self.lengths)), key=lambda number: (-self.lengths[number], number)):
            new: list[int] = []
            for bin in [*bins, new]:
                if sum(self.lengths[other] for other in (*bin, number)) <= self.capacity:
                    bin.append(number)
                    break
            bins += [new] if new else []
        return [sorted(bin) for bin in bins]

    def with_(self, **changes: Any) -> Lengths:
        return replace(self, **changes)


def lengths_of(choose: Choices, *, least: int = 0) -> Lengths:
    capacity = choose.between(1, 12)
    return Lengths([choose.below(capacity + 1) for _ in choose.several(least, 14)], capacity)


def bin_lengths(*, least: int = 0) -> SearchStrategy[Lengths]:
    """Up to 14 sequences of 0 tokens to a whole bin of 1 to 12."""
    return drawn(lambda choose: lengths_of(choose, least=least))


@dataclass(frozen=True)
class Documents:
    """Rows for a tiny model, and another first row of the same length as one of them."""

    rows: list[list[int]]
    changed: int
    other: list[int]
    multiple_of: int | None
    first_position: int


def documents_of(choose: Choices) -> Documents:
    rows = [[choose.between(1, 15) for _ in range(choose.between(1, 6))] for _ in choose.several(2, 4)]
    changed = choose.below(len(rows))
    other = [1 + token % 15 for token in rows[changed]]  # every token is another
    return Documents(rows, changed, other, choose.of((None, 8)), choose.of((0, 2)))


def documents() -> SearchStrategy[Documents]:
    """Two to four documents of 1 to 6 tokens, one of which is to be changed."""
    return drawn(documents_of)
