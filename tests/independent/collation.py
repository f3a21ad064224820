"""Padding with torch: a tensor of fill values, then each feature written into its row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tests.independent.ignored import IGNORED

FILL = {"labels": IGNORED, "attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1, "word_ids": -1}


def pad_batch(
    features: Sequence[Mapping[str, Any]],
    *,
    pad_id: int,
    side: str = "right",
    multiple_of: int | None = None,
    length: int | None = None,
) -> dict[str, torch.Tensor]:
    """See `docs/contract.md`."""
    if len(features) == 0:
        raise ValueError("no features")
    if side not in ("right", "left"):
        raise ValueError(f"side {side!r} is neither 'right' nor 'left'")
    if multiple_of is not None and multiple_of < 1:
        raise ValueError(f"multiple_of must be at least 1, got {multiple_of}")

    columns = list(features[0])
    ragged = [name for name in columns if np.ndim(features[0][name])]
    rows = [dict(feature) for feature in features]
    sizes = []
    for index, row in enumerate(rows):
        if set(row) != set(columns):
            raise ValueError(f"feature {index} has columns {sorted(row)}, feature 0 has {sorted(columns)}")
        for name in columns:
            if bool(np.ndim(row[name])) != (name in ragged):
                raise ValueError(f"feature {index}: column {name!r} is a sequence in one feature, a number in another")
        lengths = {name: len(row[name]) for name in ragged}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"feature {index}: columns of unequal length {lengths}")
        sizes.append(max(lengths.values(), default=0))
        if length is not None and sizes[-1] > length:
            raise ValueError(f"feature {index} has {sizes[-1]} tokens, length is {length}")
        if "attention_mask" not in columns and "input_ids" in ragged and sizes[-1]:
            end = row["input_ids"][-1 if side == "right" else 0]
            if end == pad_id:
                raise ValueError(f"feature {index} ends in pad_id {pad_id} and has no attention_mask: pass it")
        if ragged and "attention_mask" not in columns:
            row["attention_mask"] = [1] * sizes[-1]
    if ragged and "attention_mask" not in columns:
        ragged.append("attention_mask")

    width = max(sizes) if length is None else length
    if multiple_of is not None:
        width = -(-width // multiple_of) * multiple_of

    batch = {}
    for name in rows[0]:
        if name not in ragged:
            batch[name] = torch.tensor([integer(row[name], index, name) for index, row in enumerate(rows)])
            continue
        fill = pad_id if name == "input_ids" else FILL.get(name)
        if fill is None and any(size < width for size in sizes):
            raise ValueError(f"column {name!r} is ragged and has no known fill")
        batch[name] = torch.full((len(rows), width), 0 if fill is None else int(fill), dtype=torch.int64)
        for index, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            values = [-1 if name == "word_ids" and v is None else integer(v, index, name) for v in row[name]]
            start = 0 if side == "right" else width - size
            batch[name][index, start : start + size] = torch.tensor(values, dtype=torch.int64)
    return batch


def integer(value: Any, index: int, name: str) -> int:
    """Return a value as a Python integer, or raise ValueError."""
    if value is None or int(value) != value:
        raise ValueError(f"feature {index}: column {name!r} holds {value!r}, not an integer")
    return int(value)
