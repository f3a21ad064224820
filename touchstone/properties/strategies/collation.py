"""Strategies for `pad_batch`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from touchstone.properties.domain import supported_values
from touchstone.properties.strategies.defaults import without_defaults

Feature = dict[str, Any]

sides: SearchStrategy[str] = supported_values("side", ["right", "left"])
FILLS = {"labels": -100, "attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1, "word_ids": -1}
SCALARS = ("example", "label")


@dataclass(frozen=True)
class Batch:
    """Arguments of `pad_batch`."""

    features: list[Feature]
    pad_id: int
    side: str
    multiple_of: int | None = None
    length: int | None = None
    brief: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        arguments = {"side": self.side, "multiple_of": self.multiple_of, "length": self.length}
        return {"pad_id": self.pad_id, **without_defaults(arguments, brief=self.brief)}

    @property
    def lengths(self) -> list[int]:
        return [len(feature["input_ids"]) for feature in self.features]

    @property
    def width(self) -> int:
        width = max(self.lengths) if self.length is None else self.length
        return width if self.multiple_of is None else -(-width // self.multiple_of) * self.multiple_of

    def place(self, row: int) -> slice:
        """Return the place of the feature's values in its padded row."""
        size = self.lengths[row]
        return slice(0, size) if self.side == "right" else slice(self.width - size, self.width)

    def with_(self, **changes: Any) -> Batch:
        return replace(self, **changes)


@st.composite
def alike_batches(draw: DrawFn) -> Batch:
    """Rows and columns that hold the same values and need no padding: code might share their memory."""
    ids = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6))
    names = ["input_ids", "labels", "token_type_ids", "attention_mask"]
    features = [{name: list(ids) for name in names} for _ in range(draw(st.integers(1, 3)))]
    return Batch(features, 0, draw(sides), brief=draw(st.booleans()))


def masks(size: int) -> SearchStrategy[list[int]]:
    """Attention masks with about one zero in five."""
    return st.lists(st.sampled_from((1, 1, 1, 1, 0)), min_size=size, max_size=size)


@st.composite
def batches(draw: DrawFn, *, mask: bool | None = None, labels: bool | None = None, scalars: bool = False) -> Batch:
    """One to four features of 0 to 8 tokens. The padding id occurs in the text, as if padding and end were one id.

    Args:
        mask, labels: whether the features have that column; `None` for either.
        scalars: some columns hold one integer a feature.
    """
    side, pad_id = draw(sides), draw(st.sampled_from([0, 3, 7]))
    with_mask = draw(st.booleans()) if mask is None else mask
    with_labels = draw(st.booleans()) if labels is None else labels
    same_labels = draw(st.booleans())
    others = draw(st.sets(st.sampled_from(("token_type_ids", "special_tokens_mask", "word_ids"))))
    label = st.sampled_from((-100, *range(10)))
    features: list[Feature] = []
    for row, ids in enumerate(draw(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=4))):
        size = len(ids)
        if not with_mask and ids and ids[-1 if side == "right" else 0] == pad_id:
            ids[-1 if side == "right" else 0] = pad_id + 1  # without a mask it would look like padding
        feature: Feature = {"input_ids": ids}
        if with_mask:
            feature["attention_mask"] = draw(masks(size))
        if with_labels:
            feature["labels"] = list(ids) if same_labels else draw(st.lists(label, min_size=size, max_size=size))
        if "token_type_ids" in others:
            feature["token_type_ids"] = [int(position > size // 2) for position in range(size)]
        if "special_tokens_mask" in others:
            feature["special_tokens_mask"] = [int(position in (0, size - 1)) for position in range(size)]
        if "word_ids" in others:
            feature["word_ids"] = [None if position in (0, size - 1) else position // 2 for position in range(size)]
        feature |= {name: 100 * row + len(name) for name in SCALARS if scalars}
        features.append(feature)
    longest = max(len(feature["input_ids"]) for feature in features)
    length = draw(st.none() | st.integers(longest, longest + 5))
    multiple_of = draw(st.sampled_from((None, 4, 1, 8)))
    return Batch(features, pad_id, side, multiple_of, length, draw(st.booleans()))


@st.composite
def labelled_features(draw: DrawFn) -> list[Feature]:
    """One to four sequences of 1 to 9 tokens, each token with a label or -100."""
    token = st.tuples(st.integers(1, 15), st.sampled_from((0, 1, 2, 3, 4, -100)))
    rows = draw(st.lists(st.lists(token, min_size=1, max_size=9), min_size=1, max_size=4))
    return [
        {"input_ids": [id for id, _ in row], "labels": [label for _, label in row], "attention_mask": [1] * len(row)}
        for row in rows
    ]
