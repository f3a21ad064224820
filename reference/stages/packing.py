"""Packing: sequences of different lengths in one row of tokens without padding, each attended by itself alone.

Nothing here keeps neighbours apart but `offsets`: hand them to an attention that takes sequence lengths (`cu_seqlens`),
or make a block-diagonal mask of them. Positions alone do not, in most models. Nor do labels: a model that shifts them
itself (a causal one) compares a row's last token with the first label of the row behind it.

Sources: Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination" (arXiv 2107.02027); Johnson 1973,
"Near-optimal bin packing algorithms", for first fit decreasing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from touchstone.stages.collation import FILLS, lengths_of, read_rows
from touchstone.stages.ragged import Array, Ragged

MADE = ("position_ids", "offsets")
"""The columns that packing makes."""


def pack(
    features: Sequence[Mapping[str, Any]], *, pad_id: int, first_position: int = 0, multiple_of: int | None = None
) -> dict[str, Array]:
    """B rows one after the other, as flat columns of T tokens.

    Args:
        features: B mappings of column to T_i integers (list, tuple or array), or to one integer. `None` in `word_ids`
            becomes -1.
        pad_id: fills `input_ids` where the end is padded. The other columns have their own fill, see `FILLS`.
        first_position: the position of each row's first token (RoBERTa and its kin count from `pad_id + 1`).
        multiple_of: round T up to a multiple of this: the padding is one segment more, behind all rows (an empty one
            where nothing is missing, so that the number of segments does not depend on the lengths).

    Returns:
        Column to (T,) int64, or (B,) for columns of single integers; beside these
        `position_ids`: (T,) int64, counted anew in each row; `first_position` throughout the padding, so that it needs
        no position that the model lacks;
        `offsets`: (B + 1,) int64, row b being the tokens from `offsets[b]` to `offsets[b + 1]` (`cu_seqlens`); (B + 2,)
        with `multiple_of`.

    Raises:
        ValueError: no features, features without a sequence or with a column that packing makes, columns of unequal
            length in one feature, features that differ in their columns, values that are not integers, an
            `attention_mask` that hides a token (there is no mask afterwards: take padding off first), a column to be
            padded that has no known fill, a negative `first_position`, `multiple_of < 1`.
    """
    rows = read_rows(features)
    lengths = lengths_of(rows)
    _check_options(rows[0], first_position=first_position, multiple_of=multiple_of)
    if lengths is None:
        raise ValueError(f"the columns {sorted(rows[0])} are all of one integer a row: there is nothing to pack")
    sequences = [name for name, value in rows[0].items() if value.ndim]
    for number, row in enumerate(rows):
        _refuse_hidden(row.get("attention_mask"), f"features[{number}]")

    padding = _missing(sum(lengths), multiple_of)
    packed = {}
    for name in rows[0]:
        if name in sequences:
            parts = [row[name] for row in rows]
            packed[name] = np.concatenate([*parts, _padding(name, padding, pad_id=pad_id)]).astype(np.int64)
        else:
            packed[name] = np.array([row[name] for row in rows], np.int64)
    positions = [np.arange(first_position, first_position + length) for length in lengths]
    packed["position_ids"] = np.concatenate([*positions, np.full(padding, first_position)]).astype(np.int64)
    packed["offsets"] = np.cumsum([0, *lengths, *([] if multiple_of is None else [padding])], dtype=np.int64)
    return packed


def unpack(values: Any, *, offsets: Sequence[int] | Array, rows: int | None = None) -> list[npt.NDArray[Any]]:
    """The way back: what belongs to each row.

    Args:
        values: (T, ...) a packed column, or what a model made of each token, such as (T, L) logits.
        offsets: (S + 1,) as `pack` gives them.
        rows: how many segments are rows; what lies behind them is padding and left out. None: all S.

    Returns:
        One array a row, (T_i, ...), of its own memory.

    Raises:
        ValueError: offsets that do not run from 0 to T or decrease, more `rows` than segments or fewer than 0.
    """
    values, offsets = np.asarray(values), np.asarray(offsets, np.int64)
    count = _check_segments(len(values), offsets, rows)
    return [values[offsets[row] : offsets[row + 1]].copy() for row in range(count)]


def assign_bins(lengths: Sequence[int] | Array, *, capacity: int) -> list[list[int]]:
    """Which sequences to pack together into rows of at most `capacity` tokens: first fit decreasing.

    The longest sequence first (of equal ones the first), each into the first bin that still has room for it. So the
    bins are at most 11/9 of the fewest possible, and one more.

    Args:
        lengths: (N,) tokens of each sequence.
        capacity: tokens of a bin.

    Returns:
        The sequences of each bin, their numbers ascending; bins in the order in which they were opened.

    Raises:
        ValueError: `capacity < 1`, a length below 0 or above `capacity`.
    """
    sizes = _check_lengths(lengths, capacity=capacity).tolist()
    room: list[int] = []
    bins: list[list[int]] = []
    for sequence in sorted(range(len(sizes)), key=lambda number: -sizes[number]):  # stable: equal ones keep their order
        first = next((bin for bin, left in enumerate(room) if left >= sizes[sequence]), None)
        if first is None:
            first = len(bins)
            room.append(capacity)
            bins.append([])
        room[first] -= sizes[sequence]
        bins[first].append(sequence)
    return [sorted(bin) for bin in bins]


def _check_options(columns: Mapping[str, Any], *, first_position: int, multiple_of: int | None) -> None:
    if taken := [name for name in MADE if name in columns]:
        raise ValueError(f"a column is called {taken[0]!r}, which packing makes: leave it out")
    if first_position < 0:
        raise ValueError(f"first_position is {first_position}: a position is 0 or more")
    if multiple_of is not None and multiple_of < 1:
        raise ValueError(f"multiple_of is {multiple_of}: it must be 1 or more")


def _refuse_hidden(mask: npt.NDArray[Any] | None, where: str) -> None:
    if mask is not None and (hidden := np.flatnonzero(mask != 1)).size:
        raise ValueError(
            f"{where} has attention_mask[{hidden[0]}] = {mask[hidden[0]]}, which nothing hides once it is packed: "
            "take what is not to be seen out of the row first"
        )


def _missing(tokens: int, multiple_of: int | None) -> int:
    """How many tokens are missing to a multiple."""
    return 0 if multiple_of is None else -tokens % multiple_of


def _padding(name: str, size: int, *, pad_id: int) -> Array:
    fill = pad_id if name == "input_ids" else FILLS.get(name)
    if size and fill is None:
        raise ValueError(f"column {name!r} must be padded by {size} and has no known fill: leave it out")
    return np.full(size, fill if fill is not None else 0, np.int64)


def _check_segments(tokens: int, offsets: Array, rows: int | None) -> int:
    """How many rows there are."""
    if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != tokens:
        raise ValueError(f"offsets must run from 0 to {tokens}, got {offsets[:1]} to {offsets[-1:]}")
    if (drops := np.flatnonzero(np.diff(offsets) < 0)).size:
        raise ValueError(f"offsets decrease after segment {drops[0]}")
    segments = len(offsets) - 1
    if rows is not None and not 0 <= rows <= segments:
        raise ValueError(f"rows is {rows}, and offsets say that there are {segments} segments")
    return segments if rows is None else rows


def _check_lengths(lengths: Sequence[int] | Array, *, capacity: int) -> Array:
    if capacity < 1:
        raise ValueError(f"capacity is {capacity}: a bin has 1 token or more")
    sizes = np.asarray(lengths, np.int64)
    if (wrong := np.flatnonzero((sizes < 0) | (sizes > capacity))).size:
        raise ValueError(f"lengths[{wrong[0]}] is {sizes[wrong[0]]}, and a bin takes 0 to {capacity}: cut it first")
    return sizes


# The batched twins ----------------------------------------------------------------------------------------------------


def pack_batch(
    columns: Mapping[str, Ragged], *, pad_id: int, first_position: int = 0, multiple_of: int | None = None
) -> dict[str, Array]:
    """`pack` of columnar rows: they lie in a row already, so only positions and padding are new.

    Raises:
        ValueError: as `pack`.
    """
    _check_options(columns, first_position=first_position, multiple_of=multiple_of)
    first = next(iter(columns.values()), None)
    if first is None or not len(first):
        raise ValueError("no rows: there must be at least one to pack")
    for name, column in columns.items():
        if not np.array_equal(column.offsets, first.offsets):
            raise ValueError(f"column {name!r} has rows of other lengths than column {next(iter(columns))!r}")
    if "attention_mask" in columns and (hidden := np.flatnonzero(columns["attention_mask"].values != 1)).size:
        row = int(first.rows[hidden[0]])
        _refuse_hidden(columns["attention_mask"][row], f"features[{row}]")

    tokens = len(first.values)
    padding = _missing(tokens, multiple_of)
    packed = {}
    for name, column in columns.items():
        packed[name] = np.concatenate([column.values, _padding(name, padding, pad_id=pad_id)])
    positions = np.arange(first_position, first_position + tokens + padding, dtype=np.int64)
    positions[:tokens] -= np.repeat(first.offsets[:-1], first.lengths)
    positions[tokens:] = first_position
    end = [] if multiple_of is None else [tokens + padding]
    return packed | {"position_ids": positions, "offsets": np.concatenate([first.offsets, end]).astype(np.int64)}


def assign_bins_batch(lengths: Array, *, capacity: int) -> Ragged:
    """`assign_bins` by length instead of by sequence: all sequences of one length are placed at a time.

    Returns:
        One row a bin.

    Raises:
        ValueError: as `assign_bins`.
    """
    sizes = _check_lengths(lengths, capacity=capacity)
    order = np.argsort(-sizes, kind="stable")
    room = np.empty(0, np.int64)
    placed: list[Array] = []
    for size, count in zip(*(part[::-1].tolist() for part in np.unique(sizes, return_counts=True)), strict=True):
        fits = room // size if size else np.full(len(room), count)
        taken = np.clip(count - (np.cumsum(fits) - fits), 0, fits)  # first bins first, each until it is full
        rest = count - int(taken.sum())
        each = capacity // size if size else count
        opened = np.diff(np.append(np.arange(0, rest, each), rest)) if rest else np.empty(0, np.int64)
        taken = np.concatenate([taken, opened])
        room = np.concatenate([room, np.full(len(opened), capacity)]) - size * taken
        placed.append(np.repeat(np.arange(len(room)), taken))
    bin_of = np.empty(len(sizes), np.int64)
    bin_of[order] = np.concatenate([np.empty(0, np.int64), *placed])
    return Ragged.from_lengths(np.argsort(bin_of, kind="stable"), lengths=np.bincount(bin_of, minlength=len(room)))
