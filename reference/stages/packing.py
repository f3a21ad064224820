"""Pack sequences of different lengths into one row of tokens without padding, where each attends only to itself.

Only `offsets` keep neighbouring sequences apart: pass them to an attention that takes sequence lengths (`cu_seqlens`),
or make a block-diagonal mask from them. In most models positions alone are not enough. Neither are labels: a causal
model, which shifts them itself, compares a row's last token with the first label of the next row.

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
"""The columns that packing adds."""


def pack(
    features: Sequence[Mapping[str, Any]], *, pad_id: int, first_position: int = 0, multiple_of: int | None = None
) -> dict[str, Array]:
    """Concatenate B rows into flat columns of T tokens.

    >>> packed = pack([{"input_ids": [5, 6]}, {"input_ids": [7]}], pad_id=0, multiple_of=4)
    >>> {name: column.tolist() for name, column in packed.items()}
    {'input_ids': [5, 6, 7, 0], 'position_ids': [0, 1, 0, 0], 'offsets': [0, 2, 3, 4]}

    Args:
        features: B mappings of column to T_i integers (list, tuple or array), or to one integer. `None` in `word_ids`
            becomes -1.
        pad_id: the fill of `input_ids` if the end is padded. The other columns have their own fill, see `FILLS`.
        first_position: the position of each row's first token (RoBERTa and similar models count from `pad_id + 1`).
        multiple_of: round T up to a multiple of this. The padding is one more segment after all rows. It is empty if
            no padding is needed, so the number of segments does not depend on the lengths.

    Returns:
        Column to (T,) int64, or (B,) for columns of single integers, and in addition
        `position_ids`: (T,) int64, which restart at `first_position` in each row and are `first_position` throughout
        the padding, so that padding never exceeds the model's positions;
        `offsets`: (B + 1,) int64, where row b is the tokens from `offsets[b]` to `offsets[b + 1]` (`cu_seqlens`);
        (B + 2,) with `multiple_of`.

    Raises:
        ValueError: no features, features without a sequence or with a column that packing adds, columns of unequal
            length in one feature, features with different columns, values that are not integers, an `attention_mask`
            that hides a token (packed rows have no mask: remove padding first), a column that needs padding but has no
            known fill, a negative `first_position`, `multiple_of < 1`.
    """
    rows = read_rows(features)
    lengths = lengths_of(rows)
    _check_options(rows[0], first_position=first_position, multiple_of=multiple_of)
    if lengths is None:
        raise ValueError(f"the columns {sorted(rows[0])} hold one integer per row: packing needs a column of sequences")
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
    """Split packed values into rows: the inverse of `pack` for one column.

    >>> [row.tolist() for row in unpack([5, 6, 7, 0], offsets=[0, 2, 3, 4], rows=2)]
    [[5, 6], [7]]

    Args:
        values: (T, ...) a packed column, or a model's output for each token, such as (T, L) logits.
        offsets: (S + 1,) as `pack` returns them.
        rows: the number of segments that are rows. Later segments are padding and left out. None: all S.

    Returns:
        One array per row, (T_i, ...), each with its own memory.

    Raises:
        ValueError: offsets that do not run from 0 to T or that decrease, `rows` below 0 or above S.
    """
    values, offsets = np.asarray(values), np.asarray(offsets, np.int64)
    count = _check_segments(len(values), offsets, rows)
    return [values[offsets[row] : offsets[row + 1]].copy() for row in range(count)]


def assign_bins(lengths: Sequence[int] | Array, *, capacity: int) -> list[list[int]]:
    """Choose which sequences to pack together into bins of at most `capacity` tokens, by first fit decreasing.

    The longest sequence comes first (the first of equal ones), and each goes into the first bin that has room for it.
    The number of bins is at most 11/9 of the smallest possible number, plus one.

    >>> assign_bins([3, 5, 2], capacity=5)
    [[1], [0, 2]]

    Args:
        lengths: (N,) the number of tokens in each sequence.
        capacity: the largest number of tokens in a bin.

    Returns:
        The indices of each bin's sequences, ascending; the bins in the order in which they were opened.

    Raises:
        ValueError: `capacity < 1`, a length below 0 or above `capacity`.
    """
    sizes = _check_lengths(lengths, capacity=capacity).tolist()
    room: list[int] = []
    bins: list[list[int]] = []
    for sequence in sorted(
        range(len(sizes)), key=lambda number: -sizes[number]
    ):  # stable: equal lengths keep their order
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
        raise ValueError(f"features have the column {taken[0]!r}, which packing adds: leave it out")
    if first_position < 0:
        raise ValueError(f"first_position is {first_position}: a position is 0 or more")
    if multiple_of is not None and multiple_of < 1:
        raise ValueError(f"multiple_of is {multiple_of}: it must be 1 or more")


def _refuse_hidden(mask: npt.NDArray[Any] | None, where: str) -> None:
    if mask is not None and (hidden := np.flatnonzero(mask != 1)).size:
        raise ValueError(
            f"{where} has attention_mask[{hidden[0]}] = {mask[hidden[0]]}: packed rows have no mask, so remove masked "
            "tokens first"
        )


def _missing(tokens: int, multiple_of: int | None) -> int:
    """Return the number of tokens missing to the next multiple."""
    return 0 if multiple_of is None else -tokens % multiple_of


def _padding(name: str, size: int, *, pad_id: int) -> Array:
    fill = pad_id if name == "input_ids" else FILLS.get(name)
    if size and fill is None:
        raise ValueError(f"column {name!r} needs {size} values of padding but has no known fill: leave it out")
    return np.full(size, fill if fill is not None else 0, np.int64)


def _check_segments(tokens: int, offsets: Array, rows: int | None) -> int:
    """Return the number of rows, or raise ValueError for offsets that do not cut the tokens."""
    if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != tokens:
        raise ValueError(f"offsets must run from 0 to {tokens}, got {offsets[:1]} to {offsets[-1:]}")
    if (drops := np.flatnonzero(np.diff(offsets) < 0)).size:
        raise ValueError(f"offsets decrease after segment {drops[0]}")
    segments = len(offsets) - 1
    if rows is not None and not 0 <= rows <= segments:
        raise ValueError(f"rows is {rows}: offsets describe {segments} segments, so use 0 to {segments}")
    return segments if rows is None else rows


def _check_lengths(lengths: Sequence[int] | Array, *, capacity: int) -> Array:
    if capacity < 1:
        raise ValueError(f"capacity is {capacity}: a bin has 1 token or more")
    sizes = np.asarray(lengths, np.int64)
    if (wrong := np.flatnonzero((sizes < 0) | (sizes > capacity))).size:
        raise ValueError(
            f"lengths[{wrong[0]}] is {sizes[wrong[0]]}: a bin takes 0 to {capacity} tokens, so cut the sequence first"
        )
    return sizes


# The batched versions -------------------------------------------------------------------------------------------------


def pack_batch(
    columns: Mapping[str, Ragged], *, pad_id: int, first_position: int = 0, multiple_of: int | None = None
) -> dict[str, Array]:
    """Apply `pack` to columns of `Ragged`. Their values are already concatenated; positions and padding are added.

    Args:
        columns: column to B rows.
        pad_id, first_position, multiple_of: as in `pack`.

    Returns:
        As `pack`.

    Raises:
        ValueError: as in `pack`.
    """
    _check_options(columns, first_position=first_position, multiple_of=multiple_of)
    first = next(iter(columns.values()), None)
    if first is None or not len(first):
        raise ValueError("no rows: packing needs at least one")
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
    """Apply `assign_bins` to lengths instead of sequences: all sequences of one length are placed at once.

    Args:
        lengths: (N,) the number of tokens in each sequence.
        capacity: the largest number of tokens in a bin.

    Returns:
        One row per bin.

    Raises:
        ValueError: as in `assign_bins`.
    """
    sizes = _check_lengths(lengths, capacity=capacity)
    order = np.argsort(-sizes, kind="stable")
    room = np.empty(0, np.int64)
    placed: list[Array] = []
    for size, count in zip(*(part[::-1].tolist() for part in np.unique(sizes, return_counts=True)), strict=True):
        fits = room // size if size else np.full(len(room), count)
        taken = np.clip(count - (np.cumsum(fits) - fits), 0, fits)  # fill the first bins first
        rest = count - int(taken.sum())
        each = capacity // size if size else count
        opened = np.diff(np.append(np.arange(0, rest, each), rest)) if rest else np.empty(0, np.int64)
        taken = np.concatenate([taken, opened])
        room = np.concatenate([room, np.full(len(opened), capacity)]) - size * taken
        placed.append(np.repeat(np.arange(len(room)), taken))
    bin_of = np.empty(len(sizes), np.int64)
    bin_of[order] = np.concatenate([np.empty(0, np.int64), *placed])
    return Ragged.from_lengths(np.argsort(bin_of, kind="stable"), lengths=np.bincount(bin_of, minlength=len(room)))
