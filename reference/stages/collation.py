"""Pad sequences of different lengths to the rectangular arrays that a model takes.

Each column has its own fill value, so that neither attention nor loss sees the padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from touchstone.stages.ragged import IGNORED, MISSING, Array

FILLS = {
    "labels": IGNORED,
    "attention_mask": 0,
    "token_type_ids": 0,
    "special_tokens_mask": 1,
    "word_ids": MISSING,
}
"""The fill value of each column; `input_ids` are filled with the tokenizer's `pad_id`."""

SIDES = ("right", "left")

Row = dict[str, npt.NDArray[Any]]
"""One feature. Each of its columns is an array of shape () or (T,)."""


def pad_batch(
    features: Sequence[Mapping[str, Any]],
    *,
    pad_id: int,
    side: str = "right",
    multiple_of: int | None = None,
    length: int | None = None,
) -> dict[str, Array]:
    """Pad B features to one width and stack them into arrays.

    >>> batch = pad_batch([{"input_ids": [5, 6, 7], "labels": [1, 0, 1]}, {"input_ids": [8], "labels": [1]}], pad_id=0)
    >>> batch["input_ids"].tolist()
    [[5, 6, 7], [8, 0, 0]]
    >>> batch["labels"].tolist()
    [[1, 0, 1], [1, -100, -100]]
    >>> batch["attention_mask"].tolist()
    [[1, 1, 1], [1, 0, 0]]

    Args:
        features: B mappings of column to T_i integers (list, tuple or array), or to one integer. `None` in `word_ids`
            becomes -1.
        pad_id: the fill of `input_ids`. The other columns have their own fill, see `FILLS`.
        side: the side of the padding, `right` or `left`.
        multiple_of: round the width up to a multiple of this.
        length: the width, instead of the longest T_i.

    Returns:
        Column to (B, T) int64, or (B,) for columns of single integers. `attention_mask` is added if it is missing.

    Raises:
        ValueError: no features, an unknown side, a feature longer than `length`, columns of unequal length in one
            feature, features with different columns, a column that needs padding but has no known fill, values that
            are not integers, a feature without `attention_mask` that already ends (on the padded side) in `pad_id`.
    """
    rows = read_rows(features)
    check_side(side)
    lengths = lengths_of(rows)
    if lengths is not None and "attention_mask" not in rows[0]:
        _refuse_padded(rows, pad_id=pad_id, side=side)
        rows = [row | {"attention_mask": np.ones(size, np.int64)} for row, size in zip(rows, lengths, strict=True)]
    return pad_rows(rows, fills=FILLS | {"input_ids": pad_id}, side=side, multiple_of=multiple_of, length=length)


def read_rows(features: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the features with their columns as arrays: one integer as (), a sequence as (T_i,)."""
    if not features:
        raise ValueError("no features: a batch needs at least one")
    return [{name: _integers(value, name, index) for name, value in f.items()} for index, f in enumerate(features)]


def check_side(side: str, *, argument: str = "side") -> None:
    """Raise ValueError for an unknown side; `argument` is its name in the message."""
    if side not in SIDES:
        raise ValueError(f"{argument} {side!r} is unknown: use one of {', '.join(SIDES)}")


def pad_rows(
    rows: Sequence[Row],
    *,
    fills: Mapping[str, int],
    side: str,
    multiple_of: int | None,
    length: int | None,
    argument: str = "length",
) -> dict[str, Array]:
    """Pad columns to one width, each with its own fill. `argument` is the name of `length` in error messages."""
    lengths = lengths_of(rows)
    scalars = [name for name, value in rows[0].items() if value.ndim == 0]
    batch = {name: np.array([row[name] for row in rows], np.int64) for name in scalars}
    if lengths is None:
        return batch
    width = _width(lengths, length=length, multiple_of=multiple_of, argument=argument)
    for name in rows[0]:
        if name in scalars:
            continue
        if name not in fills and min(lengths) < width:
            raise ValueError(f"column {name!r} needs padding to {width} but has no known fill: drop it or pad it first")
        padded = np.full((len(rows), width), fills.get(name, 0), np.int64)
        for target, row, size in zip(padded, rows, lengths, strict=True):
            target[slice(0, size) if side == "right" else slice(width - size, width)] = row[name]
        batch[name] = padded
    return {name: batch[name] for name in rows[0]}


def _integers(value: Any, name: str, index: int) -> npt.NDArray[Any]:
    """Return one integer as a () array, a sequence as a (T,) array; `None` becomes -1 in `word_ids`."""
    array = np.asarray(value)
    if array.dtype == object and name == "word_ids":
        array = np.asarray([MISSING if item is None else item for item in value])
    if array.size == 0 and array.ndim == 1:
        return array.astype(np.int64)  # NumPy makes floats of an empty list
    if array.ndim > 1 or array.dtype.kind not in "iub":
        raise ValueError(f"features[{index}][{name!r}] is not an integer or a flat sequence of integers: {value!r}")
    return array


def lengths_of(rows: Sequence[Row]) -> list[int] | None:
    """Return the length of each feature, or None if no column is a sequence.

    Raises:
        ValueError: features with different columns, columns of unequal length in one feature.
    """
    expected = {name: value.ndim for name, value in rows[0].items()}
    lengths = []
    for index, row in enumerate(rows):
        if row.keys() != expected.keys():
            raise ValueError(f"features[{index}] has the columns {sorted(row)}, features[0] has {sorted(expected)}")
        sizes = {name: len(value) for name, value in row.items() if value.ndim}
        if wrong := [name for name, value in row.items() if value.ndim != expected[name]]:
            raise ValueError(
                f"{wrong[0]!r} is one integer in features[0] or features[{index}], a sequence in the other"
            )
        if len(set(sizes.values())) > 1:
            raise ValueError(f"features[{index}] has columns of unequal length: {sizes}")
        lengths.extend(list(sizes.values())[:1])
    return lengths or None


def _width(lengths: Sequence[int], *, length: int | None, multiple_of: int | None, argument: str) -> int:
    if length is not None and max(lengths) > length:
        index = next(index for index, size in enumerate(lengths) if size > length)
        raise ValueError(
            f"features[{index}] has {lengths[index]} tokens, more than {argument}={length}: truncate it first"
        )
    if multiple_of is not None and multiple_of < 1:
        raise ValueError(f"multiple_of is {multiple_of}: it must be 1 or more")
    width = max(lengths) if length is None else length
    return width if multiple_of is None else -(-width // multiple_of) * multiple_of


def _refuse_padded(rows: Sequence[Row], *, pad_id: int, side: str) -> None:
    edge = -1 if side == "right" else 0
    for index, row in enumerate(rows):
        ids = row.get("input_ids")
        if ids is not None and ids.size and ids[edge] == pad_id:
            raise ValueError(
                f"features[{index}] has no attention_mask, and its input_ids have pad_id={pad_id} at the {side} end: "
                "this may be padding or text, so pass the attention_mask"
            )
