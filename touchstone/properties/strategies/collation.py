"""Cases for `pad_batch`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from touchstone.properties.strategies.choices import Choices, drawn
from touchstone.properties.strategies.defaults import without_defaults

Feature = dict[str, Any]

sides: SearchStrategy[str] = st.sampled_from(["right", "left"])
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
        """Where in the padded row the feature's own values stand."""
        size = self.lengths[row]
        return slice(0, size) if self.side == "right" else slice(self.width - size, self.width)

    def with_(self, **changes: Any) -> Batch:
        return replace(self, **changes)


def alike(choose: Choices) -> Batch:
    """Rows and columns that hold the same values, with nothing to pad: a temptation to share them."""
    ids = [choose.below(10) for _ in range(choose.between(1, 6))]
    names = ["input_ids", "labels", "token_type_ids", "attention_mask"]
    features = [{name: list(ids) for name in names} for _ in range(choose.between(1, 3))]
    return Batch(features, 0, choose.of(["right", "left"]), brief=choose.flip())


def alike_batches() -> SearchStrategy[Batch]:
    return drawn(alike)


def batch(choose: Choices, *, mask: bool | None = None, labels: bool | None = None, scalars: bool = False) -> Batch:
    side, pad_id, brief = choose.of(["right", "left"]), choose.of([0, 3, 7]), choose.flip()
    with_mask = choose.flip() if mask is None else mask
    with_labels = choose.flip() if labels is None else labels
    same_labels = choose.flip()
    others = [name for name in ("token_type_ids", "special_tokens_mask", "word_ids") if choose.flip()]
    features: list[Feature] = []
    for row in choose.several(1, 4):
        ids = [choose.below(10) for _ in choose.several(0, 8)]
        size = len(ids)
        if not with_mask and ids and ids[-1 if side == "right" else 0] == pad_id:
            ids[-1 if side == "right" else 0] = pad_id + 1
        feature: Feature = {"input_ids": ids}
        if with_mask:
            feature["attention_mask"] = [int(choose.below(5) < 4) for _ in ids]
        if with_labels:
            feature["labels"] = list(ids) if same_labels else [choose.of((-100, *range(10))) for _ in ids]
        if "token_type_ids" in others:
            feature["token_type_ids"] = [int(position > size // 2) for position in range(size)]
        if "special_tokens_mask" in others:
            feature["special_tokens_mask"] = [int(position in (0, size - 1)) for position in range(size)]
        if "word_ids" in others:
            feature["word_ids"] = [None if position in (0, size - 1) else position // 2 for position in range(size)]
        feature |= {name: 100 * row + len(name) for name in SCALARS if scalars}
        features.append(feature)
    lengths = [len(feature["input_ids"]) for feature in features]
    length = max(lengths) + choose.below(6) if choose.flip() else None
    return Batch(features, pad_id, side, choose.of((None, 4, 1, 8)), length, brief)


def batches(*, mask: bool | None = None, labels: bool | None = None, scalars: bool = False) -> SearchStrategy[Batch]:
    """One to four features of 0 to 8 tokens; the padding id occurs in the text, as where pad and end are one id.

    Args:
        mask, labels: whether the features have that column; `None` for either.
        scalars: some columns are one integer a feature.
    """
    return drawn(lambda choose: batch(choose, mask=mask, labels=labels, scalars=scalars))


def labelled_features() -> SearchStrategy[list[Feature]]:
    """One to four sequences of 1 to 9 tokens, each token with a label or -100."""

    def build(choose: Choices) -> list[Feature]:
        features = []
        for _ in choose.several(1, 4):
            size = choose.between(1, 9)
            ids, labels = (
                [choose.between(1, 15) for _ in range(size)],
                [choose.of((0, 1, 2, 3, 4, -100)) for _ in range(size)],
            )
            features.append({"input_ids": ids, "labels": labels, "attention_mask": [1] * size})
        return features

    return drawn(build)
