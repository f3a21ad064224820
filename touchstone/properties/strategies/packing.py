"""Strategies for `pack`, `unpack` and `assign_bins`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from touchstone.properties.strategies.collation import FILLS, SCALARS, Feature
from touchstone.properties.strategies.defaults import without_defaults


@dataclass(frozen=True)
class Packed:
    """Arguments of `pack`, and the expected result."""

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
        """The columns that hold a sequence."""
        return [name for name, value in self.features[0].items() if isinstance(value, list)]

    @property
    def lengths(self) -> list[int]:
        return [len(feature[self.columns[0]]) for feature in self.features]

    @property
    def tokens(self) -> int:
        """The number of tokens of all rows, without padding."""
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


@st.composite
def packed(
    draw: DrawFn, *, labels: bool | None = None, scalars: bool = False, padded: bool = False, least: int = 0
) -> Packed:
    """One to four rows of 0 to 7 tokens. The padding id occurs in the text.

    Args:
        labels: whether rows have labels; `None` for either.
        scalars: some columns hold one integer a row.
        padded: the result always needs padding.
        least: least number of tokens of a row.
    """
    pad_id = draw(st.sampled_from((0, 1, 7)))
    with_labels = draw(st.booleans()) if labels is None else labels
    names = ("attention_mask", "token_type_ids", "special_tokens_mask", "word_ids")
    others = [name for name in names if draw(st.booleans())]
    label = st.sampled_from((*range(10), -100))
    ids = st.lists(st.integers(0, 9), min_size=max(least, int(padded)), max_size=7)
    features: list[Feature] = []
    for row, tokens in enumerate(draw(st.lists(ids, min_size=1, max_size=4))):
        size = len(tokens)
        feature: Feature = {"input_ids": tokens}
        if with_labels:
            feature["labels"] = draw(st.lists(label, min_size=size, max_size=size))
        ends = (0, size - 1)
        made = {
            "attention_mask": [1] * size,
            "token_type_ids": [int(place > size // 2) for place in range(size)],
            "special_tokens_mask": [int(place in ends) for place in range(size)],
            "word_ids": [None if place in ends else place // 2 for place in range(size)],
        }
        feature |= {name: made[name] for name in others}
        features.append(feature | {name: 100 * row + len(name) for name in SCALARS if scalars})
    first_position, multiple_of = draw(st.sampled_from((0, 2, 1))), draw(st.sampled_from((None, 8, 1, 5)))
    case = Packed(features, pad_id, first_position, multiple_of, draw(st.booleans()))
    return case.with_(multiple_of=case.tokens + draw(st.integers(1, 6))) if padded else case


@dataclass(frozen=True)
class Segments:
    """Arguments of `unpack`, and the rows that it must return."""

    values: list[Any]
    offsets: list[int]
    rows: int | None
    expected: list[list[Any]]

    @property
    def arguments(self) -> dict[str, Any]:
        return {"offsets": self.offsets} | ({} if self.rows is None else {"rows": self.rows})


@st.composite
def segments(draw: DrawFn, *, least: int = 0) -> Segments:
    """Up to five segments of 0 to 5 integers or pairs of numbers. All are rows, or some are padding after the rows."""
    deep = draw(st.booleans())
    numbers = draw(st.lists(st.lists(st.integers(0, 8), max_size=5), min_size=least, max_size=5))
    parts = [[[n / 2, float(-n)] if deep else n for n in part] for part in numbers]
    rows = draw(st.none() | st.integers(0, len(parts)))
    values = [value for part in parts for value in part]
    return Segments(values, list(accumulate(map(len, parts), initial=0)), rows, parts if rows is None else parts[:rows])


@dataclass(frozen=True)
class Lengths:
    """Arguments of `assign_bins`."""

    lengths: list[int]
    capacity: int

    @property
    def arguments(self) -> dict[str, Any]:
        return {"capacity": self.capacity}

    def bins(self, *, rule: str) -> list[list[int]]:
        """Return the bins of a rule, longest sequences first, with every bin summed again for every sequence.

        Args:
            rule: `first fit` or `best fit`: the first bin with room, or the first of those with the least room.
        """
        bins: list[list[int]] = []
        for number in sorted(range(len(self.lengths)), key=lambda number: (-self.lengths[number], number)):

            def room(bin: list[int], number: int = number) -> int:
                return self.capacity - sum(self.lengths[other] for other in (*bin, number))

            fitting = [bin for bin in bins if room(bin) >= 0]
            if not fitting:
                bins.append([number])
            elif rule == "first fit":
                fitting[0].append(number)
            else:
                min(fitting, key=room).append(number)
        return [sorted(bin) for bin in bins]

    def with_(self, **changes: Any) -> Lengths:
        return replace(self, **changes)


@st.composite
def bin_lengths(draw: DrawFn, *, least: int = 0) -> Lengths:
    """Up to 14 sequences of 0 to `capacity` tokens, and a capacity of 1 to 12."""
    capacity = draw(st.integers(1, 12))
    return Lengths(draw(st.lists(st.integers(0, capacity), min_size=least, max_size=14)), capacity)


@dataclass(frozen=True)
class Documents:
    """Rows for a tiny model, and `other`, another row of the same length to replace row `changed`."""

    rows: list[list[int]]
    changed: int
    other: list[int]
    multiple_of: int | None
    first_position: int


@st.composite
def documents(draw: DrawFn) -> Documents:
    """Two to four documents of 1 to 6 tokens, one of which is to be changed."""
    rows = draw(st.lists(st.lists(st.integers(1, 15), min_size=1, max_size=6), min_size=2, max_size=4))
    changed = draw(st.integers(0, len(rows) - 1))
    other = [1 + token % 15 for token in rows[changed]]  # every token differs
    return Documents(rows, changed, other, draw(st.sampled_from((None, 8))), draw(st.sampled_from((0, 2))))
