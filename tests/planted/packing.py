"""Bugs of packing rows without padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import touchstone.stages
from tests.independent.packing import assign_bins, pack, unpack
from tests.planted.bug import planted
from touchstone.stages.ragged import Ragged

IGNORED = -100


def lengths(features: Any) -> list[int]:
    return [max(len(value) for value in feature.values() if np.ndim(value)) for feature in features]


# Offsets -----------------------------------------------------------------------------------------------------------


@planted("pack", caught_by="F2", evidence="modelscope/ms-swift#9904")
def rows_of_one_token_are_overlooked(features, **options):
    """Boundaries are where positions fall: between two rows of one token each, 0 follows 0 and nothing falls."""
    packed = pack(features, **options)
    positions = packed["position_ids"].tolist()
    falls = [place for place in range(1, len(positions)) if positions[place] < positions[place - 1]]
    packed["offsets"] = torch.tensor([0, *falls, len(positions)])
    return packed


@planted("pack", caught_by="F2 F11", evidence="MeetKai/functionary#265")
def all_rows_are_one_segment(features, **options):
    """Naive packing: nothing says where rows end, and every token attends to all of them."""
    packed = pack(features, **options)
    packed["offsets"] = torch.tensor([0, len(packed["position_ids"])])
    return packed


@planted("pack", caught_by="F2")
def offsets_without_the_end(features, **options):
    """The offsets say where rows begin, and the last row's end is left out."""
    packed = pack(features, **options)
    packed["offsets"] = packed["offsets"][:-1]
    return packed


@planted("pack", caught_by="F2")
def offsets_are_lengths(features, **options):
    """The lengths of the rows, not yet summed up."""
    packed = pack(features, **options)
    packed["offsets"] = torch.diff(packed["offsets"], prepend=torch.tensor([0]))
    return packed


@planted("pack", caught_by="F2")
def empty_rows_have_no_segment(features, **options):
    """A row of no tokens is skipped: later rows get the number of the row before."""
    packed = pack(features, **options)
    packed["offsets"] = torch.unique(packed["offsets"])
    return packed


@planted("pack", caught_by="F1 F7")
def longest_row_first(features, **options):
    """The rows are sorted by length for the kernel's sake, and what belongs to them is not."""
    order = sorted(range(len(features)), key=lambda row: -lengths(features)[row]) if len(features) else []
    return pack([features[row] for row in order], **options)


# Positions ---------------------------------------------------------------------------------------------------------


@planted("pack", caught_by="F3 F11", evidence="hiyouga/LlamaFactory#7318")
def positions_run_on(features, *, first_position=0, **options):
    """The mask keeps neighbours apart, but positions are those in the whole packed row."""
    packed = pack(features, first_position=first_position, **options)
    packed["position_ids"] = torch.arange(first_position, first_position + len(packed["position_ids"]))
    return packed


@planted("pack", caught_by="F3", evidence="huggingface/transformers#47496")
def first_position_is_always_zero(features, *, first_position=0, **options):
    """Positions begin at 0 in every model, in RoBERTa's family too, whose first one is 2."""
    return pack(features, **options)


@planted("pack", caught_by="F3")
def only_the_first_row_begins_at_the_first_position(features, *, first_position=0, **options):
    """`first_position` is where the first row begins; all others begin at 0."""
    packed = pack(features, **options)
    packed["position_ids"][: int(packed["offsets"][1])] += first_position
    return packed


@planted("pack", caught_by="F6")
def padding_counts_on(features, *, first_position=0, multiple_of=None, **options):
    """The padding's positions count like a row's: longer than any row, it needs positions that the model lacks."""
    packed = pack(features, first_position=first_position, multiple_of=multiple_of, **options)
    if multiple_of is not None:
        padding = packed["position_ids"][int(packed["offsets"][-2]) :]
        padding += torch.arange(len(padding))
    return packed


# Labels and other columns ------------------------------------------------------------------------------------------


@planted("pack", caught_by="F4", evidence="huggingface/transformers#31629")
def first_label_of_each_row_is_blanked(features, **options):
    """As DataCollatorWithFlattening does for causal models: right there, but here the label of a token is lost."""
    packed = pack(features, **options)
    if "labels" in packed:
        starts = packed["offsets"][: len(features)]
        packed["labels"][starts[starts < len(packed["labels"])]] = IGNORED
    return packed


@planted("pack", caught_by="F4")
def labels_shifted_over_boundaries(features, **options):
    """Labels are shifted for the model, over the whole packed row: each row's last one is its neighbour's first."""
    packed = pack(features, **options)
    if "labels" in packed:
        packed["labels"] = torch.roll(packed["labels"], -1)
    return packed


@planted("pack", caught_by="F1 F5", evidence="aws-neuron/neuronx-distributed-training#22")
def every_column_is_read_from_the_ids(features, **options):
    """All columns are filled from `input_ids`: one name was left when the line was copied."""
    packed = pack(features, **options)
    made = ("position_ids", "offsets", "input_ids")
    return {
        name: packed["input_ids"].clone() if name not in made and len(column) == len(packed["input_ids"]) else column
        for name, column in packed.items()
    }


@planted("pack", caught_by="F5")
def unknown_columns_are_dropped(features, **options):
    """Only tokens and labels are packed: word ids, token types and single integers are lost."""
    packed = pack(features, **options)
    return {name: packed[name] for name in ("input_ids", "labels", "position_ids", "offsets") if name in packed}


@planted("pack", caught_by="F5")
def a_mask_of_ones_is_made(features, **options):
    """An attention mask of ones is added, as padding would have it: models build a mask of theirs that sees all."""
    packed = pack(features, **options)
    return {**packed, "attention_mask": packed.get("attention_mask", torch.ones_like(packed["position_ids"]))}


# Padding -----------------------------------------------------------------------------------------------------------


@planted("pack", caught_by="F6")
def padding_belongs_to_the_last_row(features, *, multiple_of=None, **options):
    """The last row's end is the end of the padding: its tokens attend to it."""
    packed = pack(features, multiple_of=multiple_of, **options)
    if multiple_of is not None:
        packed["offsets"] = torch.cat([packed["offsets"][:-2], packed["offsets"][-1:]])
    return packed


@planted("pack", caught_by="F6")
def padding_belongs_to_nobody(features, *, multiple_of=None, **options):
    """The offsets end with the rows: kernels leave what lies behind as they found it in memory."""
    packed = pack(features, multiple_of=multiple_of, **options)
    if multiple_of is not None:
        packed["offsets"] = packed["offsets"][:-1]
    return packed


@planted("pack", caught_by="F6")
def padding_has_labels(features, *, multiple_of=None, **options):
    """Padded labels are 0: the loss learns them."""
    packed = pack(features, multiple_of=multiple_of, **options)
    if "labels" in packed and multiple_of is not None:
        packed["labels"][int(packed["offsets"][-2]) :] = 0
    return packed


@planted("pack", caught_by="F6")
def a_whole_multiple_too_many(features, *, multiple_of=None, **options):
    """`m - T % m`: where nothing is missing, a whole multiple is added."""
    packed = pack(features, multiple_of=multiple_of, **options)
    tokens = int(packed["offsets"][len(features)])
    if multiple_of is not None and tokens % multiple_of == 0:
        grown = pack(features, multiple_of=tokens + multiple_of, **options) if tokens else packed
        return grown
    return packed


@planted("pack", caught_by="F6")
def no_segment_where_nothing_is_missing(features, *, multiple_of=None, **options):
    """The padding has a segment only where there is some: the number of segments depends on the lengths."""
    packed = pack(features, multiple_of=multiple_of, **options)
    if multiple_of is not None and packed["offsets"][-1] == packed["offsets"][-2]:
        packed["offsets"] = packed["offsets"][:-1]
    return packed


@planted("pack", caught_by="F6")
def padding_is_zero(features, *, pad_id, **options):
    """The padding of `input_ids` is 0, whatever the tokenizer pads with."""
    return pack(features, pad_id=0, **options)


# Input -------------------------------------------------------------------------------------------------------------


@planted("pack", caught_by="F8")
def hidden_tokens_come_to_light(features, **options):
    """Features that were padded before are packed with their padding, which nothing hides any more."""
    shown = [
        {name: [1] * len(value) if name == "attention_mask" else value for name, value in feature.items()}
        for feature in features
    ]
    return pack(shown, **options)


@planted("pack", caught_by="F8")
def longer_columns_are_cut(features, **options):
    """Columns of different lengths are silently cut to the shortest."""
    cut = []
    for feature in features:
        shortest = min((len(value) for value in feature.values() if np.ndim(value)), default=0)
        cut.append({name: value[:shortest] if np.ndim(value) else value for name, value in feature.items()})
    return pack(cut, **options)


@planted("pack", caught_by="F8")
def own_positions_are_overwritten(features, **options):
    """A column that packing makes is replaced, whatever the caller meant by it."""
    kept = [
        {name: value for name, value in feature.items() if name not in ("position_ids", "offsets")}
        for feature in features
    ]
    return pack(kept, **options)


@planted("pack", caught_by="F8")
def nothing_is_packed_of_nothing(features, **options):
    """A batch without rows gives a packed row without tokens, on which a model or its kernel fails later."""
    if len(features):
        return pack(features, **options)
    return {"position_ids": torch.empty(0, dtype=torch.int64), "offsets": torch.zeros(1, dtype=torch.int64)}


@planted("pack", caught_by="F8")
def unknown_columns_are_padded_with_zeros(features, **options):
    """A column without a known fill is padded with zeros, which may have a meaning there."""
    known = {"input_ids", "attention_mask", "token_type_ids", "labels", "word_ids", "special_tokens_mask"}
    unknown = [name for name in (features[0] if len(features) else ()) if name not in known]
    packed = pack([{name: feature[name] for name in feature if name not in unknown} for feature in features], **options)
    for name in unknown:
        values = np.concatenate([np.atleast_1d(feature[name]) for feature in features]).astype(np.int64)
        fill = len(packed["input_ids"]) - len(values) if np.ndim(features[0][name]) else 0
        packed[name] = torch.from_numpy(np.pad(values, (0, max(fill, 0))))
    return packed


@planted("pack", caught_by="F9")
def the_callers_rows_are_taken_away(features, **options):
    """Each row is removed from the caller's feature while it is packed, to save memory."""
    packed = pack(features, **options)
    for feature in features:
        feature.pop("input_ids", None)
    return packed


@planted("pack", caught_by="F9")
def a_single_row_is_handed_through(features, **options):
    """One row needs no concatenation: the result's memory is the caller's."""
    packed = pack(features, **options)
    if len(features) == 1:
        own = {name: value for name, value in features[0].items() if isinstance(value, np.ndarray) and value.ndim}
        packed |= {name: value for name, value in own.items() if len(value) == len(packed[name])}
    return packed


@planted("pack", caught_by="F9")
def lists_are_added(features, **options):
    """`rows = rows + row`, from the empty list on: right for lists, an error for tuples."""
    for name in features[0] if len(features) else ():
        if np.ndim(features[0][name]):
            rows: Any = []
            for feature in features:
                rows = rows + feature[name]
    return pack(features, **options)


@planted("pack_batch", caught_by="F10", base=touchstone.stages)
def twin_counts_positions_from_the_first_row(columns, *, first_position=0, **options):
    """The batched version does not subtract the start of each row: positions continue from row to row."""
    packed = touchstone.stages.pack_batch(columns, first_position=first_position, **options)
    return {**packed, "position_ids": np.arange(first_position, first_position + len(packed["position_ids"]))}


@planted("pack_batch", caught_by="F10", base=touchstone.stages)
def twin_does_not_look_at_the_mask(columns, **options):
    """The batched version takes a column called `attention_mask` like any other."""
    shown = {
        name: column.with_values(np.ones_like(column.values)) if name == "attention_mask" else column
        for name, column in columns.items()
    }
    return touchstone.stages.pack_batch(shown, **options)


# Unpacking ---------------------------------------------------------------------------------------------------------


@planted("unpack", caught_by="F1 F12")
def padding_is_a_row(values, *, offsets, rows=None):
    """`rows` is ignored: the padding is returned as another row."""
    return unpack(values, offsets=offsets)


@planted("unpack", caught_by="F1 F12")
def empty_rows_do_not_come_back(values, *, offsets, rows=None):
    """A row of no tokens is left out: later rows get its place."""
    return [row for row in unpack(values, offsets=offsets, rows=rows) if len(row)]


@planted("unpack", caught_by="F12")
def only_the_first_number_of_each_token(values, *, offsets, rows=None):
    """The value of each token is treated as one number."""
    return [row if row.ndim == 1 else row[:, 0] for row in unpack(values, offsets=offsets, rows=rows)]


@planted("unpack", caught_by="F12")
def rows_are_views(values, *, offsets, rows=None):
    """Rows share the memory of the packed array: changing one changes it."""
    whole = unpack(values, offsets=offsets, rows=rows)
    if isinstance(values, np.ndarray):
        return [values[start : start + len(row)] for start, row in zip(offsets, whole, strict=False)]
    return whole


@planted("unpack", caught_by="F12")
def too_many_rows_are_as_many_as_there_are(values, *, offsets, rows=None):
    """`rows` is cut to what there is, as a slice does."""
    return unpack(values, offsets=offsets, rows=None if rows is None else min(max(rows, 0), len(offsets) - 1))


# Bins --------------------------------------------------------------------------------------------------------------


@planted("assign_bins", caught_by="F13", evidence="aws-neuron/neuronx-distributed-training#22")
def a_sequence_that_fills_a_bin_is_skipped(lengths, *, capacity):
    """`length < capacity`: a sequence exactly as long as a bin gets none."""
    bins = assign_bins(lengths, capacity=capacity)
    return [bin for bin in bins if len(bin) > 1 or lengths[bin[0]] < capacity]


@planted("assign_bins", caught_by="F13")
def the_last_bin_is_dropped(lengths, *, capacity):
    """A bin is handed out when the next one is opened, and the last one never is."""
    return assign_bins(lengths, capacity=capacity)[:-1]


@planted("assign_bins", caught_by="F14 F15")
def capacity_is_checked_too_late(lengths, *, capacity):
    """A bin is closed only once it is full: the sequence that fills it may exceed the capacity."""
    bins = [[]]
    for number in sorted(range(len(assign_bins(lengths, capacity=capacity) and lengths)), key=lambda n: -lengths[n]):
        if sum(lengths[other] for other in bins[-1]) >= capacity:
            bins.append([])
        bins[-1].append(number)
    return [sorted(bin) for bin in bins if bin]


@planted("assign_bins", caught_by="F15")
def next_fit_in_the_given_order(lengths, *, capacity):
    """Sequences are taken as they come and only the last bin is looked at: many bins, half empty."""
    assign_bins(lengths, capacity=capacity)  # refuses what must be refused
    bins: list[list[int]] = []
    for number, length in enumerate(lengths):
        if not bins or sum(lengths[other] for other in bins[-1]) + length > capacity:
            bins.append([])
        bins[-1].append(number)
    return bins


@planted("assign_bins", caught_by="F15")
def equal_lengths_are_reversed(lengths, *, capacity):
    """Sorted ascending and read from the end: of equal sequences the last comes first."""
    count = len(lengths)
    bins = assign_bins(list(lengths)[::-1], capacity=capacity)
    return [sorted(count - 1 - number for number in bin) for bin in bins]


@planted("assign_bins", caught_by="F16")
def too_long_a_sequence_gets_a_bin_of_its_own(lengths, *, capacity):
    """A sequence longer than a bin is let through."""
    return assign_bins([min(length, max(capacity, 1)) for length in lengths], capacity=capacity)


@planted("assign_bins", caught_by="F16")
def the_callers_lengths_are_sorted(lengths, *, capacity):
    """`lengths.sort()` instead of `sorted(lengths)`."""
    bins = assign_bins(lengths, capacity=capacity)
    if hasattr(lengths, "sort"):
        lengths.sort()
    return bins


@planted("assign_bins_batch", caught_by="F17", base=touchstone.stages)
def twin_opens_bins_by_length(lengths, *, capacity):
    """The batched version never puts a shorter sequence next to a longer one."""
    bins: list[Any] = []
    for length in sorted(set(lengths.tolist()), reverse=True):
        own = np.flatnonzero(lengths == length)
        bins += [own[row] for row in touchstone.stages.assign_bins_batch(lengths[own], capacity=capacity)]
    touchstone.stages.assign_bins_batch(lengths, capacity=capacity)
    return Ragged.from_arrays(bins)
