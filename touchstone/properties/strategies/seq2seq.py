"""Cases for `pad_seq2seq`, `shift_right` and `clean_sequences`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis.strategies import SearchStrategy

from touchstone.properties.strategies.choices import Choices, drawn
from touchstone.properties.strategies.defaults import without_defaults

Feature = dict[str, Any]

TARGET = {"labels": -100, "decoder_attention_mask": 0}
"""The target's columns and their fills."""


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
        """Where in the padded row the feature's own labels stand."""
        size = self.label_lengths[row]
        return slice(0, size) if self.label_side == "right" else slice(self.label_width - size, self.label_width)

    def padded(self, name: str) -> list[list[int]]:
        """A column of the target as it must come."""
        rows = []
        for row, feature in enumerate(self.features):
            cells = [TARGET[name]] * self.label_width
            cells[self.label_place(row)] = feature[name]
            rows.append(cells)
        return rows

    def with_(self, **changes: Any) -> Pairs:
        return replace(self, **changes)


def pairs_of(choose: Choices, *, ends: bool = False) -> Pairs:
    pad_id, brief = choose.of((0, 3, 7)), choose.flip()
    side, label_side = choose.of(("right", "left")), choose.of(("right", "right", "left"))
    mask, decoder_mask, types, scalar = (choose.flip() for _ in range(4))
    features: list[Feature] = []
    for row in choose.several(1, 4):
        ids = [choose.below(10) for _ in choose.several(0, 8)]
        if not mask and ids and ids[-1 if side == "right" else 0] == pad_id:
            ids[-1 if side == "right" else 0] = pad_id + 1  # nobody could tell it from padding
        feature: Feature = {"input_ids": ids}
        if mask:
            feature["attention_mask"] = [int(choose.below(5) < 4) for _ in ids]
        if types:
            feature["token_type_ids"] = [choose.below(2) for _ in ids]
        labels = [choose.of((*range(10), -100)) for _ in choose.several(0, 8)]
        feature["labels"] = [*labels, pad_id] if ends or choose.flip() else labels
        if decoder_mask:
            feature["decoder_attention_mask"] = [int(choose.below(5) < 4) for _ in feature["labels"]]
        if scalar:
            feature["example"] = 100 + row
        features.append(feature)
    length = max(len(f["input_ids"]) for f in features) + choose.below(6) if choose.flip() else None
    label_length = max(len(f["labels"]) for f in features) + choose.below(6) if choose.flip() else None
    return Pairs(features, pad_id, side, label_side, choose.of((None, 4, 1, 8)), length, label_length, brief)


def pairs(*, ends: bool = False) -> SearchStrategy[Pairs]:
    """One to four pairs of 0 to 8 tokens and 0 to 9 labels, of lengths that know nothing of each other.

    Args:
        ends: all labels end in a real end of sequence that has the padding's id.
    """
    return drawn(lambda choose: pairs_of(choose, ends=ends))


@dataclass(frozen=True)
class Targets:
    """Arguments of `shift_right`. `tokens` are the labels without their padding, which is -100 or `pad_id`."""

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


def targets_of(choose: Choices, *, wrap: bool | None = None, bare: bool = False) -> Targets:
    pad_id, width = choose.of((1, 0, 9)), choose.between(1, 8)
    wrapped, brief = (choose.flip() if wrap is None else wrap), choose.flip()
    start_id = None if wrapped else choose.of((pad_id, 2, 0, 30))
    fills = choose.of(((-100,), (pad_id,), (-100, pad_id)))
    rows, tokens = [], []
    for _ in choose.several(1, 4):
        size = choose.between(0 if bare and not wrapped else 1, width)
        own = [choose.between(10, 20) for _ in range(size)]
        tokens.append(own)
        rows.append([*own, *(choose.of(fills) for _ in range(width - size))])
    return Targets(rows, tokens, pad_id, start_id, brief)


def targets(*, wrap: bool | None = None, bare: bool = False) -> SearchStrategy[Targets]:
    """One to four rows of labels, 1 to 8 wide, padded at the right with -100, with `pad_id`, or with both.

    Args:
        wrap: without `start_id`; `None` for either.
        bare: with `start_id`, some rows are padding only.
    """
    return drawn(lambda choose: targets_of(choose, wrap=wrap, bare=bare))


@dataclass(frozen=True)
class Sequences:
    """Arguments of `clean_sequences`. `tokens` are what must be left."""

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
"""Padding, end, start: T5's, BART's, all different, pad and end one (GPT-2's), all one; labels have no start."""


def sequences_of(choose: Choices, *, one_id: bool = False) -> Sequences:
    pad_id, eos_id, start_id = choose.of(IDS[3:5] + IDS[6:7] if one_id else IDS)
    rows, tokens = [], []
    for _ in choose.several(0, 4):
        own = [choose.between(10, 20) for _ in choose.several(0, 6)]
        row = list(own)
        if start_id is not None and choose.below(4):
            row = [start_id, *row]
            if start_id not in (pad_id, eos_id) and choose.below(4) == 0:
                own = [*own, start_id]  # at the beginning alone it is no token of the text
                row = [*row, start_id]
        elif start_id is not None and start_id == eos_id and not own:
            row = [start_id]  # an end that stands first is taken for a start: then nothing may follow it but padding
        if choose.below(3) and row != [start_id]:
            row.append(eos_id)
            if choose.flip():  # what a search that goes on with other rows writes behind this one's end
                row += [choose.between(10, 20) for _ in range(2)]
        places = choose.of(((), (-100,), (pad_id,), (pad_id, -100)))
        row += [choose.of(places) for _ in range(choose.below(4)) if places]
        if choose.below(4) == 0:
            row.insert(choose.below(len(row) + 1), -100)
        rows.append(row)
        tokens.append(own)
    return Sequences(rows, tokens, pad_id, eos_id, start_id, choose.flip())


def sequences(*, one_id: bool = False) -> SearchStrategy[Sequences]:
    """Up to four rows as a model writes them or a collator pads them, -100 anywhere among them.

    Args:
        one_id: the padding is the end of sequence too, and sometimes the start.
    """
    return drawn(lambda choose: sequences_of(choose, one_id=one_id))
