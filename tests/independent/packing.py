"""Packing token by token: positions and offsets are appended together with each row's tokens."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from tests.independent.collation import FILL, integer


def pack(
    features: Sequence[Mapping[str, Any]], *, pad_id: int, first_position: int = 0, multiple_of: int | None = None
) -> dict[str, torch.Tensor]:
    """See `docs/contract.md`."""
    if len(features) == 0:
        raise ValueError("there are no features")
    if first_position < 0:
        raise ValueError(f"first_position must not be negative, got {first_position}")
    if multiple_of is not None and multiple_of < 1:
        raise ValueError(f"multiple_of must be at least 1, got {multiple_of}")
    columns = list(features[0])
    for name in ("position_ids", "offsets"):
        if name in columns:
            raise ValueError(f"feature 0 has a column {name!r}, which packing adds")
    flat = [name for name in columns if np.ndim(features[0][name])]
    if not flat:
        raise ValueError("no column is a sequence")

    tokens: dict[str, list[int]] = {name: [] for name in columns}
    positions: list[int] = []
    ends = [0]
    for index, feature in enumerate(features):
        if set(feature) != set(columns):
            raise ValueError(f"feature {index} has columns {sorted(feature)}, feature 0 has {sorted(columns)}")
        lengths = {name: len(feature[name]) for name in flat}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"feature {index}: columns of unequal length {lengths}")
        for name in columns:
            values = feature[name] if name in flat else [feature[name]]
            tokens[name] += [-1 if v is None and name == "word_ids" else integer(v, index, name) for v in values]
        if any(int(flag) != 1 for flag in feature.get("attention_mask", ())):
            raise ValueError(f"feature {index}: attention_mask hides tokens, but packed rows have no mask")
        positions += range(first_position, first_position + lengths[flat[0]])
        ends.append(len(positions))

    while multiple_of is not None and len(positions) % multiple_of:
        for name in flat:
            if name != "input_ids" and name not in FILL:
                raise ValueError(f"column {name!r} has no known fill")
            tokens[name].append(pad_id if name == "input_ids" else FILL[name])
        positions.append(first_position)
    if multiple_of is not None:
        ends.append(len(positions))
    made = {"position_ids": positions, "offsets": ends}
    return {name: torch.tensor(values, dtype=torch.int64) for name, values in {**tokens, **made}.items()}


def unpack(values: Any, *, offsets: Sequence[int], rows: int | None = None) -> list[torch.Tensor]:
    """See `docs/contract.md`."""
    tensor = torch.as_tensor(np.array(values))
    bounds = [int(bound) for bound in offsets]
    sizes = [stop - start for start, stop in pairwise(bounds)]
    if bounds[:1] != [0] or min(sizes, default=0) < 0 or sum(sizes) != len(tensor):
        raise ValueError(f"offsets {bounds} do not cut {len(tensor)} tokens into segments")
    if rows is not None and not 0 <= rows <= len(sizes):
        raise ValueError(f"{rows} rows of {len(sizes)} segments")
    return [part.clone() for part in tensor.split(sizes)][:rows] if sizes else []


def assign_bins(lengths: Sequence[int], *, capacity: int) -> list[list[int]]:
    """See `docs/contract.md`."""
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    for number, length in enumerate(lengths):
        if not 0 <= length <= capacity:
            raise ValueError(f"length {number} is {length}, not within 0 and {capacity}")
    waiting = list(enumerate(int(length) for length in lengths))
    bins: list[list[int]] = []
    while waiting:
        # What first fit puts into its first bin does not depend on the other bins: fill one, then the next.
        chosen, room = [], capacity
        for number, length in sorted(waiting, key=lambda pair: (-pair[1], pair[0])):
            if length <= room:
                chosen.append(number)
                room -= length
        bins.append(sorted(chosen))
        waiting = [pair for pair in waiting if pair[0] not in chosen]
    return bins
