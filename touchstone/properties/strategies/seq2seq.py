"""Strategies for `pad_seq2seq`, `shift_right` and `clean_sequences`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from touchstone.properties.strategies.collation import masks, sides
from touchstone.properties.strategies.defaults import without_defaults

Feature = dict[str, Any]

TARGET = {"labels": -100, "decoder_attention_mask": 0}
"""The columns of the target and their fills."""


@dataclass(frozen=True)
class Pairs:
    """Arguments of `pad_seq2seq`."""

    features: list[Feature]
    pad_id: int
    side: str
    label_side: str
    multiple_of: int | None = None
    length: int | None = None
    label_length: int | None = None
    brief: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        names = ("side", "label_side", "multiple_of", "length", "label_length")
        given = {name: getattr(self, name) for name in names}
        return {"pad_id": self.pad_id, **without_defaults(given, brief=self.brief)}

    @property
    def source(self) -> list[Feature]:
        return [{name: value for name, value in f.items() if name not in TARGET} for f in self.features]

    @property
    def label_lengths(self) -> list[int]:
        return [len(feature["labels"]) for feature in self.features]

    @property
    def label_width(self) -> int:
        width = max(self.label_lengths) if self.label_length is None else self.label_length
        return width if self.multiple_of is None else -(-width // self.multiple_of) * self.multiple_of

    def label_place(self, row: int) -> slice:
        """Return the place of the feature's labels in its padded row."""
        size = self.label_lengths[row]
        return slice(0, size) if self.label_side == "right" else slice(self.label_width - size, self.label_width)

    def padded(self, name: str) -> list[list[int]]:
        """Return the expected column of the target."""
        rows = []
        for row, feature in enumerate(self.features):
            cells = [TARGET[name]] * self.label_width
            cells[self.label_place(row)] = feature[name]
            rows.append(cells)
        return rows

    def with_(self, **changes: Any) -> Pairs:
        return replace(self, **changes)


@st.composite
def pairs(draw: DrawFn, *, ends: bool = False) -> Pairs:
    """One to four pairs of 0 to 8 tokens and 0 to 9 labels, of independent lengths.

    Args:
        ends: all labels end with a real end of sequence that has the padding's id.
    """
    pad_id, side = draw(st.sampled_from((0, 3, 7))), draw(sides)
    label_side = draw(st.sampled_from(("right", "right", "left")))
    mask, decoder_mask, types, scalar = (draw(st.booleans()) for _ in range(4))
    source = st.lists(st.integers(0, 9), max_size=8)
    target = st.lists(st.sampled_from((*range(10), -100)), max_size=8)
    rows = draw(st.lists(st.tuples(source, target, st.booleans()), min_size=1, max_size=4))
    features: list[Feature] = []
    for row, (ids, labels, has_end) in enumerate(rows):
        if not mask and ids and ids[-1 if side == "right" else 0] == pad_id:
            ids[-1 if side == "right" else 0] = pad_id + 1  # without a mask it would look like padding
        feature: Feature = {"input_ids": ids}
        if mask:
            feature["attention_mask"] = draw(masks(len(ids)))
        if types:
            feature["token_type_ids"] = draw(st.lists(st.integers(0, 1), min_size=len(ids), max_size=len(ids)))
        feature["labels"] = [*labels, pad_id] if ends or has_end else labels
        if decoder_mask:
            feature["decoder_attention_mask"] = draw(masks(len(feature["labels"])))
        if scalar:
            feature["example"] = 100 + row
        features.append(feature)
    longest, most_labels = (max(len(feature[name]) for feature in features) for name in ("input_ids", "labels"))
    length = draw(st.none() | st.integers(longest, longest + 5))
    label_length = draw(st.none() | st.integers(most_labels, most_labels + 5))
    multiple_of, brief = draw(st.sampled_from((None, 4, 1, 8))), draw(st.booleans())
    return Pairs(features, pad_id, side, label_side, multiple_of, length, label_length, brief)


@dataclass(frozen=True)
class Targets:
    """Arguments of `shift_right`. `tokens` are the labels without padding, which is -100 or `pad_id`."""

    labels: list[list[int]]
    tokens: list[list[int]]
    pad_id: int
    start_id: int | None
    brief: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        return {"pad_id": self.pad_id, **without_defaults({"start_id": self.start_id}, brief=self.brief)}

    @property
    def width(self) -> int:
        return len(self.labels[0])

    @property
    def expected(self) -> list[list[int]]:
        rows = []
        for row, tokens in zip(self.labels, self.tokens, strict=True):
            first = tokens[-1] if self.start_id is None else self.start_id
            rows.append([first, *(self.pad_id if label == -100 else label for label in row[:-1])])
        return rows

    def with_(self, **changes: Any) -> Targets:
        return replace(self, **changes)


@st.composite
def targets(draw: DrawFn, *, wrap: bool | None = None, bare: bool = False) -> Targets:
    """One to four rows of labels, 1 to 8 wide, padded on the right with -100, with `pad_id`, or with both.

    Args:
        wrap: without `start_id`; `None` for either.
        bare: if there is a `start_id`, some rows are only padding.
    """
    pad_id, width = draw(st.sampled_from((1, 0, 9))), draw(st.integers(1, 8))
    wrapped = draw(st.booleans()) if wrap is None else wrap
    start_id = None if wrapped else draw(st.sampled_from((pad_id, 2, 0, 30)))
    fill = st.sampled_from(draw(st.sampled_from(((-100,), (pad_id,), (-100, pad_id)))))
    row = st.lists(st.integers(10, 20), min_size=0 if bare and not wrapped else 1, max_size=width)
    tokens = draw(st.lists(row, min_size=1, max_size=4))
    labels = [[*own, *(draw(fill) for _ in range(width - len(own)))] for own in tokens]
    return Targets(labels, tokens, pad_id, start_id, draw(st.booleans()))


@dataclass(frozen=True)
class Sequences:
    """Arguments of `clean_sequences`. `tokens` are the rows that it must return."""

    sequences: list[list[int]]
    tokens: list[list[int]]
    pad_id: int
    eos_id: int
    start_id: int | None
    brief: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        given = without_defaults({"start_id": self.start_id}, brief=self.brief)
        return {"pad_id": self.pad_id, "eos_id": self.eos_id, **given}

    def with_(self, **changes: Any) -> Sequences:
        return replace(self, **changes)


IDS = ((0, 1, 0), (1, 2, 2), (0, 1, 3), (2, 2, 4), (5, 5, 5), (0, 1, None), (2, 2, None), (0, 2, None))
"""Ids of padding, end and start: T5, BART, all different, padding and end equal (GPT-2), all equal. Labels have no
start."""


@st.composite
def cleaned_rows(draw: DrawFn, pad_id: int, eos_id: int, start_id: int | None) -> tuple[list[int], list[int]]:
    """A row as a model generates it or a collator pads it, and the tokens that must remain of it."""
    one_in_four = st.sampled_from((False, False, False, True))
    generated = st.integers(10, 20)
    own = draw(st.lists(generated, max_size=6))
    row = list(own)
    if start_id is not None and not draw(one_in_four):
        row = [start_id, *row]
        if start_id not in (pad_id, eos_id) and draw(one_in_four):
            own = [*own, start_id]  # only at the beginning is it not a token of the text
            row = [*row, start_id]
    elif start_id is not None and start_id == eos_id and not own:
        row = [start_id]  # an end in first place is taken for a start: only padding may follow it
    if draw(st.sampled_from((True, True, False))) and row != [start_id]:
        row.append(eos_id)
        if draw(st.booleans()):  # a search that goes on for other rows appends tokens after the end of this one
            row += [draw(generated), draw(generated)]
    fills = draw(st.sampled_from(((), (-100,), (pad_id,), (pad_id, -100))))
    if fills:
        row += draw(st.lists(st.sampled_from(fills), max_size=3))
    if draw(one_in_four):
        row.insert(draw(st.integers(0, len(row))), -100)
    return row, own


@st.composite
def sequences(draw: DrawFn, *, one_id: bool = False) -> Sequences:
    """Up to four rows as a model generates them or a collator pads them, with -100 anywhere.

    Args:
        one_id: the padding is also the end of sequence, and sometimes the start.
    """
    pad_id, eos_id, start_id = draw(st.sampled_from(IDS[3:5] + IDS[6:7] if one_id else IDS))
    rows = draw(st.lists(cleaned_rows(pad_id, eos_id, start_id), max_size=4))
    return Sequences([row for row, _ in rows], [own for _, own in rows], pad_id, eos_id, start_id, draw(st.booleans()))
