"""Checks F1-F17 of docs/contract.md: `pack`, `unpack`, `assign_bins`, and the batched versions."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from touchstone.properties import tiny_model
from touchstone.properties.check import check
from touchstone.properties.domain import choice
from touchstone.properties.failure import expect, expect_that
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.packing import (
    Documents,
    Lengths,
    Packed,
    Segments,
    bin_lengths,
    documents,
    packed,
    segments,
)
from touchstone.properties.subject import Subject
from touchstone.stages.ragged import Ragged


def own_values(case: Packed, row: int, name: str) -> list[int]:
    """Return the expected column, with -1 for `None`."""
    values = [-1 if value is None else value for value in case.features[row][name]]
    if name == "labels" and choice("first_label") == "ignored":
        values[:1] = [-100] * len(values[:1])
    return values


# Packing --------------------------------------------------------------------------------------------------------------


@check("F1", needs="pack unpack", case=packed())
def test_unpacking_must_give_the_rows(implementation: Subject, case: Packed) -> None:
    came = implementation.pack(case.features, **case.arguments)
    for name in sorted(set(case.columns) & set(came)):  # F5 checks for missing columns
        rows = implementation.unpack(came[name], offsets=came["offsets"], rows=len(case.features))
        expected = [own_values(case, row, name) for row in range(len(case.features))]
        expect(expected, rows, where=f"{name}, packed and unpacked")


@check("F2", needs="pack", case=packed())
def test_offsets_must_be_where_rows_begin_and_end(implementation: Subject, case: Packed) -> None:
    expect(case.offsets, implementation.pack(case.features, **case.arguments)["offsets"])


@check("F3", needs="pack", case=packed())
def test_positions_must_start_again_in_every_row(implementation: Subject, case: Packed) -> None:
    came = implementation.pack(case.features, **case.arguments)["position_ids"]
    expected = [case.first_position + place for length in case.lengths for place in range(length)]
    expect(expected, came[: case.tokens], where="position_ids of the rows")


@check("F4", needs="pack", case=packed(labels=True, least=1))
def test_every_label_must_be_kept_including_the_first_of_a_row(implementation: Subject, case: Packed) -> None:
    came = implementation.pack(case.features, **case.arguments)["labels"]
    expected = [label for row in range(len(case.features)) for label in own_values(case, row, "labels")]
    expect(expected, came[: case.tokens], where="labels")


@check("F5", needs="pack", case=packed(scalars=True))
def test_every_column_must_be_kept_and_only_positions_and_offsets_added(implementation: Subject, case: Packed) -> None:
    came = implementation.pack(case.features, **case.arguments)
    expect(sorted({*case.features[0], "position_ids", "offsets"}), sorted(came), where="columns")
    for name in case.features[0]:
        if name in case.columns:
            expected = [value for row in range(len(case.features)) for value in own_values(case, row, name)]
            expect(expected, came[name][: case.tokens], where=f"column {name!r}")
        else:
            expect([feature[name] for feature in case.features], came[name], where=f"{name!r}, one integer a row")


@check("F6", needs="pack", case=packed(padded=True))
def test_padding_must_be_one_segment_after_the_rows_with_the_fill_of_each_column(
    implementation: Subject, case: Packed
) -> None:
    came = implementation.pack(case.features, **case.arguments)
    for name in case.columns:
        padding = came[name][case.tokens :]
        expect([case.fill(name)] * case.padding, padding, where=f"{name}, after the {case.tokens} tokens of the rows")
    positions = came["position_ids"][case.tokens :]
    expect([case.first_position] * case.padding, positions, where="position_ids of the padding")
    expect([case.tokens, case.tokens + case.padding], came["offsets"][-2:], where="the last segment")


@check("F6", needs="pack", case=packed(least=1))
def test_the_padding_must_be_an_empty_segment_if_no_token_is_missing(implementation: Subject, case: Packed) -> None:
    for multiple_of in (case.tokens, 1):
        came = implementation.pack(case.features, **case.arguments | {"multiple_of": multiple_of})
        expect(case.tokens, len(came["input_ids"]), where=f"tokens, with multiple_of={multiple_of}")
        expect([case.tokens] * 2, came["offsets"][-2:], where=f"the last segment, with multiple_of={multiple_of}")


@check("F7", needs="pack", case=packed(), row=st.integers(0, 3))
def test_a_packed_row_must_depend_only_on_that_row(implementation: Subject, case: Packed, row: int) -> None:
    row %= len(case.features)
    whole = implementation.pack(case.features, **case.arguments)
    alone = implementation.pack([case.features[row]], **case.arguments)
    start, size = sum(case.lengths[:row]), case.lengths[row]
    for name in (*case.columns, "position_ids"):
        expect(alone[name][:size], whole[name][start : start + size], where=f"{name} of row {row}, alone and packed")


@check("F8", needs="pack", kind="refusal", case=packed())
def test_pack_must_refuse_no_rows(implementation: Subject, case: Packed) -> None:
    implementation.expect_refusal("pack", [], **case.arguments)


@check(
    "F8",
    needs="pack",
    kind="refusal",
    case=packed(labels=True),
    data=st.data(),
    fault=st.sampled_from(["length", "column"]),
)
def test_pack_must_refuse_rows_with_different_columns_or_lengths(
    implementation: Subject, case: Packed, data: Any, fault: str
) -> None:
    features = [dict(feature) for feature in [*case.features, case.features[0]]]
    row = data.draw(st.integers(0, len(features) - 1))
    if fault == "length":
        features[row]["labels"] = [*features[row]["labels"], 1]
        mentions: tuple[object, ...] = (row, "labels")
    else:
        del features[row]["labels"]
        mentions = ("labels",)
    implementation.expect_refusal("pack", features, mentions=mentions, **case.arguments)


@check("F8", needs="pack", kind="refusal", case=packed(least=1), data=st.data())
def test_pack_must_refuse_a_mask_that_hides_a_token(implementation: Subject, case: Packed, data: Any) -> None:
    features = [{**feature, "attention_mask": [1] * len(feature["input_ids"])} for feature in case.features]
    row = data.draw(st.integers(0, len(features) - 1))
    features[row]["attention_mask"][data.draw(st.integers(0, case.lengths[row] - 1))] = 0
    implementation.expect_refusal("pack", features, mentions=(row, "attention_mask"), **case.arguments)


@check("F8", needs="pack", kind="refusal", case=packed(), name=st.sampled_from(["position_ids", "offsets"]))
def test_pack_must_refuse_a_column_that_it_adds_itself(implementation: Subject, case: Packed, name: str) -> None:
    features = [{**feature, name: list(feature["input_ids"])} for feature in case.features]
    implementation.expect_refusal("pack", features, mentions=(name,), **case.arguments)


@check("F8", needs="pack", kind="refusal", case=packed(padded=True))
def test_pack_must_refuse_to_pad_a_column_without_a_known_fill(implementation: Subject, case: Packed) -> None:
    features = [{**feature, "bbox": list(feature["input_ids"])} for feature in case.features]
    implementation.expect_refusal("pack", features, mentions=("bbox",), **case.arguments)


@check("F8", needs="pack", kind="refusal", case=packed(), value=st.integers(-3, -1))
def test_pack_must_refuse_positions_below_zero_and_multiples_below_one(
    implementation: Subject, case: Packed, value: int
) -> None:
    for name, wrong in (("first_position", value), ("multiple_of", value + 1)):
        arguments = case.arguments | {name: wrong}
        implementation.expect_refusal("pack", case.features, mentions=(name, wrong), **arguments)


@check("F9", needs="pack", kind="form", case=packed(scalars=True))
def test_pack_must_be_pure(implementation: Subject, case: Packed) -> None:
    expect_pure(implementation, "pack", case.features, **case.arguments)


@check("F9", needs="pack", case=packed(least=1, labels=True))
def test_a_single_packed_row_must_not_share_memory_with_its_arrays(implementation: Subject, case: Packed) -> None:
    row = {name: np.array(case.features[0][name]) for name in ("input_ids", "labels")}
    expect_pure(implementation, "pack", [row], pad_id=case.pad_id)


@check("F9", needs="pack", kind="form", case=packed())
def test_pack_must_accept_tuples_and_arrays(implementation: Subject, case: Packed) -> None:
    expect_same_for_tuples_and_arrays(implementation, "pack", case.features, **case.arguments)


@check("F10", needs="pack pack_batch", case=packed())
def test_pack_batch_must_equal_pack(implementation: Subject, case: Packed) -> None:
    expected = implementation.pack(case.features, **case.arguments)
    columns = {name: Ragged.from_lists([feature[name] for feature in case.features]) for name in case.columns}
    expect(expected, implementation.pack_batch(columns, **case.arguments))
    expect_pure(implementation, "pack_batch", columns, **case.arguments)


@check("F10", needs="pack_batch", kind="refusal", case=packed(least=1), data=st.data())
def test_pack_batch_must_refuse_a_mask_that_hides_a_token(implementation: Subject, case: Packed, data: Any) -> None:
    row = data.draw(st.integers(0, len(case.features) - 1))
    masks = [[1] * length for length in case.lengths]
    masks[row][-1] = 0
    ids = [feature["input_ids"] for feature in case.features]
    columns = {"input_ids": Ragged.from_lists(ids), "attention_mask": Ragged.from_lists(masks)}
    implementation.expect_refusal("pack_batch", columns, mentions=(row, "attention_mask"), **case.arguments)


# What packing is for --------------------------------------------------------------------------------------------------


def logits_of(ids: list[int], positions: list[int], offsets: list[int]) -> Any:
    """Return (T, L) logits of a tiny model in which each token attends only to its own segment, given by `offsets`."""
    segment = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    visible = segment[None, :, None] == segment[None, None, :]
    return tiny_model.logits([ids], positions=[positions], visible=visible)[0]


@check("F11", needs="pack", cost=3, case=documents())
def test_a_packed_document_must_have_the_logits_that_it_has_alone(implementation: Subject, case: Documents) -> None:
    options = {"pad_id": 0, "first_position": case.first_position, "multiple_of": case.multiple_of}

    def of(rows: list[list[int]]) -> tuple[Any, list[int]]:
        came = implementation.pack([{"input_ids": row} for row in rows], **options)
        return logits_of(came["input_ids"], came["position_ids"], came["offsets"]), came["offsets"]

    logits, offsets = of(case.rows)
    changed, _ = of([case.other if row == case.changed else ids for row, ids in enumerate(case.rows)])
    for row, ids in enumerate(case.rows):
        start = sum(map(len, case.rows[:row]))
        here = slice(start, start + len(ids))
        positions = list(range(case.first_position, case.first_position + len(ids)))
        apart = float(np.abs(logits[here] - logits_of(ids, positions, [0, len(ids)])).max())
        # float64 keeps 16 digits; sums in another order lose a few of them, and logits are around 1
        expect_that(
            apart < 1e-9, expected=f"the logits of row {row} alone", came=f"{apart:g} away, with offsets {offsets}"
        )
        moved = float(np.abs(changed[here] - logits[here]).max())
        if row != case.changed:
            # the same sums in the same order: a masked term is exp(-inf) = 0
            expect_that(moved == 0, expected=f"row {row} unchanged", came=f"moved {moved:g} with row {case.changed}")


# Unpacking ------------------------------------------------------------------------------------------------------------


@check("F12", needs="unpack", case=segments())
def test_each_unpacked_row_must_be_the_values_between_its_offsets(implementation: Subject, case: Segments) -> None:
    expect(case.expected, implementation.unpack(case.values, **case.arguments))


@check(
    "F12",
    needs="unpack",
    kind="refusal",
    case=segments(least=1),
    fault=st.sampled_from(["start", "end", "order", "rows", "minus"]),
)
def test_unpack_must_refuse_invalid_input(implementation: Subject, case: Segments, fault: str) -> None:
    arguments: dict[str, Any] = {"offsets": list(case.offsets), "rows": case.rows}
    offsets, count = arguments["offsets"], len(case.offsets) - 1
    if fault == "start":
        offsets[0] = 1
    elif fault == "end":
        offsets[-1] += 1
    elif fault == "order":
        arguments |= {"offsets": [0, len(case.values) + 2, len(case.values)], "rows": None}
    else:
        arguments["rows"] = count + 1 if fault == "rows" else -1
    mentions = (arguments["rows"],) if fault in ("rows", "minus") else ()
    implementation.expect_refusal("unpack", case.values, mentions=mentions, **arguments)


@check("F12", needs="unpack", kind="form", case=segments())
def test_unpack_must_be_pure(implementation: Subject, case: Segments) -> None:
    expect_pure(implementation, "unpack", case.values, **case.arguments)
    expect_pure(
        implementation, "unpack", np.array(case.values), **case.arguments
    )  # an implementation may return it unchanged


# Bins -----------------------------------------------------------------------------------------------------------------


@check("F13", needs="assign_bins", case=bin_lengths())
def test_every_sequence_must_be_in_exactly_one_bin(implementation: Subject, case: Lengths) -> None:
    came = implementation.assign_bins(case.lengths, **case.arguments)
    numbers = sorted(number for bin in came for number in bin)
    expect(list(range(len(case.lengths))), numbers, where="the numbers in all bins")
    expect_that(all(came), expected="no empty bin", came=came)


@check("F14", needs="assign_bins", case=bin_lengths())
def test_a_bin_must_not_hold_more_than_its_capacity(implementation: Subject, case: Lengths) -> None:
    for bin in implementation.assign_bins(case.lengths, **case.arguments):
        held = sum(case.lengths[number] for number in bin)
        expect_that(held <= case.capacity, expected=f"at most {case.capacity} tokens a bin", came=f"{held} in {bin}")


@check("F15", needs="assign_bins", case=bin_lengths())
def test_bins_must_be_those_of_first_fit_decreasing(implementation: Subject, case: Lengths) -> None:
    expect(case.bins(rule=choice("bins")), implementation.assign_bins(case.lengths, **case.arguments))


@check("F16", needs="assign_bins", kind="refusal", case=bin_lengths(least=1), data=st.data())
def test_assign_bins_must_refuse_invalid_lengths_and_capacities(
    implementation: Subject, case: Lengths, data: Any
) -> None:
    place = data.draw(st.integers(0, len(case.lengths) - 1))
    for wrong in (case.capacity + 1, -1):
        lengths = [wrong if number == place else length for number, length in enumerate(case.lengths)]
        implementation.expect_refusal("assign_bins", lengths, mentions=(place, wrong), **case.arguments)
    for capacity in (0, -2):
        implementation.expect_refusal("assign_bins", [], mentions=(capacity,), capacity=capacity)


@check("F16", needs="assign_bins", kind="form", case=bin_lengths())
def test_assign_bins_must_be_pure(implementation: Subject, case: Lengths) -> None:
    expect_pure(implementation, "assign_bins", case.lengths, **case.arguments)
    expect_pure(implementation, "assign_bins", np.array(case.lengths, np.int64), **case.arguments)
    expect_same_for_tuples_and_arrays(implementation, "assign_bins", case.lengths, **case.arguments)


@check("F17", needs="assign_bins assign_bins_batch", case=bin_lengths())
def test_assign_bins_batch_must_equal_assign_bins(implementation: Subject, case: Lengths) -> None:
    lengths = np.array(case.lengths, np.int64)
    expected = implementation.assign_bins(case.lengths, **case.arguments)
    expect(expected, implementation.assign_bins_batch(lengths, **case.arguments))
    expect_pure(implementation, "assign_bins_batch", lengths, **case.arguments)
