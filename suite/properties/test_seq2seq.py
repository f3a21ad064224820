"""Checks T1-T15 of docs/contract.md: `pad_seq2seq` and `shift_right`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from touchstone.properties.check import check
from touchstone.properties.failure import expect, expect_that
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.seq2seq import TARGET, Pairs, Targets, pairs, targets
from touchstone.properties.subject import Subject


def pad(implementation: Subject, case: Pairs) -> dict[str, Any]:
    result: dict[str, Any] = implementation.pad_seq2seq(case.features, **case.arguments)
    return result


def shift(implementation: Subject, case: Targets) -> list[list[int]]:
    result: list[list[int]] = implementation.shift_right(case.labels, **case.arguments)
    return result


# Padding --------------------------------------------------------------------------------------------------------------


@check("T1", needs="pad_seq2seq pad_batch", case=pairs())
def test_the_source_must_be_padded_as_pad_batch_pads_it(implementation: Subject, case: Pairs) -> None:
    names = ("pad_id", "side", "multiple_of", "length")
    arguments = {name: value for name, value in case.arguments.items() if name in names}
    expected = implementation.pad_batch(case.source, **arguments)
    came = {name: rows for name, rows in pad(implementation, case).items() if name not in TARGET}
    expect(expected, came, where="the source's columns: by pad_batch, and by pad_seq2seq with the target")


@check("T2", needs="pad_seq2seq", case=pairs(), longer=st.integers(1, 9))
def test_the_width_of_the_labels_must_not_depend_on_the_source(
    implementation: Subject, case: Pairs, longer: int
) -> None:
    for changed in (case, case.with_(length=max(len(f["input_ids"]) for f in case.features) + longer, brief=False)):
        result = implementation.raw("pad_seq2seq", changed.features, **changed.arguments)
        shape = (len(changed.features), changed.label_width)
        for name in sorted(set(TARGET) & set(result)):
            array = np.asarray(result[name])
            expect_that(array.shape == shape, expected=f"shape {shape} of {name!r}", came=f"{array.shape}")
            if array.size:
                expect_that(array.dtype == np.int64, expected=f"int64 in {name!r}", came=str(array.dtype))


@check("T3", needs="pad_seq2seq", case=pairs())
def test_labels_must_be_ignored_exactly_at_padding_and_where_they_were(implementation: Subject, case: Pairs) -> None:
    expect(case.padded("labels"), pad(implementation, case).get("labels"), where="labels")


@check("T3", needs="pad_seq2seq", case=pairs(ends=True))
def test_every_real_end_of_sequence_must_keep_its_label_even_if_its_id_is_the_padding(
    implementation: Subject, case: Pairs
) -> None:
    labels = pad(implementation, case)["labels"]
    implementation.remark(end_of_sequence=f"{case.pad_id}, which also pads")
    for row, came in enumerate(labels):
        expect(case.pad_id, came[case.label_place(row)][-1], where=f"the label of the end of row {row}")


@check("T4", needs="pad_seq2seq", case=pairs())
def test_removing_the_padding_must_give_source_and_target(implementation: Subject, case: Pairs) -> None:
    came = pad(implementation, case)
    for row, feature in enumerate(case.features):
        for name, own in feature.items():
            if name not in came or not isinstance(own, list):
                continue
            cells = came[name][row]
            if name in TARGET:
                kept = cells[case.label_place(row)]
            else:
                kept = cells[: len(own)] if case.side == "right" else cells[len(cells) - len(own) :]
            expect(own, kept, where=f"{name} of row {row} without its padding")


@check("T5", needs="pad_seq2seq", case=pairs())
def test_every_column_must_be_kept_and_only_the_attention_mask_added(implementation: Subject, case: Pairs) -> None:
    came = pad(implementation, case)
    expect(sorted({*case.features[0], "attention_mask"}), sorted(came), where="the columns")
    if "example" in came:
        expect([feature["example"] for feature in case.features], came["example"], where="one integer a row")


@check("T5", needs="pad_seq2seq", case=pairs())
def test_the_decoder_mask_must_be_padded_like_the_labels(implementation: Subject, case: Pairs) -> None:
    features = [{**f, "decoder_attention_mask": [1] * len(f["labels"])} for f in case.features]
    case = case.with_(features=features)
    expect(case.padded("decoder_attention_mask"), pad(implementation, case).get("decoder_attention_mask"))


@check("T6", needs="pad_seq2seq", case=pairs(), row=st.integers(0, 3))
def test_pairs_must_not_depend_on_each_other_and_must_keep_their_order(
    implementation: Subject, case: Pairs, row: int
) -> None:
    row %= len(case.features)
    together = pad(implementation, case)
    came = {name: values[row] for name, values in together.items()}
    alone = case.with_(
        features=[case.features[row]],
        length=len(together["input_ids"][0]),
        label_length=len(together["labels"][0]),
        multiple_of=None,
        brief=False,
    )
    expected = {name: values[0] for name, values in pad(implementation, alone).items()}
    expect(expected, came, where=f"row {row} alone, padded to the same widths, and in the batch")


FAULTS = ["nothing", "side", "label side", "no labels", "long labels", "long source", "unequal", "padded before"]


@check("T7", needs="pad_seq2seq", kind="refusal", case=pairs(), fault=st.sampled_from(FAULTS), place=st.integers(0, 3))
def test_pad_seq2seq_must_refuse_invalid_pairs(implementation: Subject, case: Pairs, fault: str, place: int) -> None:
    features = [dict(feature) for feature in case.features]
    place %= len(features)
    spoiled = features[place]
    changes: dict[str, Any] = {}
    mentions: tuple[object, ...] = (place,)
    if fault == "nothing":
        features, mentions = [], ()
    elif fault in ("side", "label side"):
        changes = {fault.replace(" ", "_"): "top"}
        mentions = ("top",)
    elif fault == "no labels":
        del spoiled["labels"]
        mentions = (place, "labels")
    elif fault == "long labels":
        spoiled["labels"] = [5] * (max(case.label_lengths) + 1)
        changes = {"label_length": max(case.label_lengths)}
        spoiled.pop("decoder_attention_mask", None)
        features = [{n: v for n, v in f.items() if n != "decoder_attention_mask"} for f in features]
        mentions = (place, max(case.label_lengths) + 1, max(case.label_lengths))
    elif fault == "long source":
        longest = max(len(feature["input_ids"]) for feature in features)
        for name in {"input_ids", "attention_mask", "token_type_ids"} & set(spoiled):
            spoiled[name] = [1] * (longest + 1)
        changes = {"length": longest}
        mentions = (place, longest + 1, longest)
        case = case.with_(pad_id=99)  # occurs in no text, so that nothing else is wrong
    elif fault == "unequal":
        spoiled["decoder_attention_mask"] = [1] * (len(spoiled["labels"]) + 1)
        features = [{"decoder_attention_mask": [1] * len(f["labels"]), **f} for f in features]
    else:
        features = [{"input_ids": f["input_ids"], "labels": f["labels"]} for f in features]
        ids = features[place]["input_ids"]
        features[place]["input_ids"] = [*ids, case.pad_id] if case.side == "right" else [case.pad_id, *ids]
        changes = {"length": None}
        for feature in features[:place]:  # the fault must be the first of its kind
            feature["input_ids"] = [case.pad_id + 1] * len(feature["input_ids"])
        mentions = (place, case.pad_id)
    case = case.with_(brief=False)
    implementation.expect_refusal("pad_seq2seq", features, mentions=mentions, **case.arguments | changes)


@check("T8", needs="pad_seq2seq", kind="form", case=pairs())
def test_pad_seq2seq_must_be_pure(implementation: Subject, case: Pairs) -> None:
    expect_pure(implementation, "pad_seq2seq", case.features, **case.arguments)


@check("T8", needs="pad_seq2seq", kind="form", case=pairs())
def test_pad_seq2seq_must_accept_tuples_and_arrays(implementation: Subject, case: Pairs) -> None:
    expect_same_for_tuples_and_arrays(implementation, "pad_seq2seq", case.features, **case.arguments)


# Shifting -------------------------------------------------------------------------------------------------------------


@check("T9", needs="shift_right", case=targets(wrap=False))
def test_the_decoder_must_read_the_start_and_then_every_label_except_the_last(
    implementation: Subject, case: Targets
) -> None:
    expect(case.expected, shift(implementation, case))


@check("T9", needs="shift_right", case=targets(wrap=False, bare=True))
def test_a_row_of_only_padding_must_be_read_as_the_start_and_padding(implementation: Subject, case: Targets) -> None:
    expect(case.expected, shift(implementation, case))


@check("T10", needs="shift_right", case=targets(wrap=True))
def test_without_start_id_the_last_real_label_must_come_first(implementation: Subject, case: Targets) -> None:
    expect(case.expected, shift(implementation, case))


@check("T11", needs="shift_right", case=targets(bare=True))
def test_the_decoder_must_not_read_a_negative_id(implementation: Subject, case: Targets) -> None:
    came = shift(implementation, case)
    lowest = min(cell for row in came for cell in row)
    expect_that(lowest >= 0, expected="ids of 0 or more, as an embedding requires", came=came)


@check("T12", needs="shift_right", case=targets(wrap=False), place=st.integers(0, 7), other=st.integers(21, 25))
def test_the_decoder_must_not_read_a_label_before_it_is_predicted(
    implementation: Subject, case: Targets, place: int, other: int
) -> None:
    """Teacher forcing: label t must be read at place t + 1 and must not be read before."""
    row = 0
    place %= len(case.tokens[row])
    labels = [list(cells) for cells in case.labels]
    labels[row][place] = other
    before, after = shift(implementation, case)[row], shift(implementation, case.with_(labels=labels))[row]
    implementation.remark(changed=f"label {place} of row {row} to {other}")
    expect(before[: place + 1], after[: place + 1], where=f"what is read up to the prediction of label {place}")
    expect(before[place + 2 :], after[place + 2 :], where=f"what is read after place {place + 1}")
    expect([other] * (place + 1 < case.width), after[place + 1 : place + 2], where=f"what is read at {place + 1}")


@check("T13", needs="shift_right", case=targets())
def test_each_row_must_be_shifted_independently(implementation: Subject, case: Targets) -> None:
    together = shift(implementation, case)
    alone = [shift(implementation, case.with_(labels=[row]))[0] for row in case.labels]
    expect(alone, together, where="each row alone, and all in one batch")


SPOILED = ["flat", "deep", "negative", "left", "left by pad_id", "no token"]


@check(
    "T14", needs="shift_right", kind="refusal", case=targets(), fault=st.sampled_from(SPOILED), place=st.integers(0, 3)
)
def test_shift_right_must_refuse_invalid_labels(implementation: Subject, case: Targets, fault: str, place: int) -> None:
    place %= len(case.labels)
    labels: Any = [list(row) for row in case.labels]
    arguments = case.arguments
    mentions: tuple[object, ...] = (place,)
    if fault == "flat":
        labels, mentions = labels[0], ()
    elif fault == "deep":
        labels, mentions = [labels], ()
    elif fault == "negative":
        labels[place][-1] = -7
        mentions = (place, -7)
    elif fault == "no token":
        labels[place] = [-100, *[case.pad_id] * (case.width - 1)]
        arguments.pop("start_id", None)
    else:
        fill = -100 if fault == "left" else case.pad_id
        labels = [[11, *row] for row in labels]
        labels[place] = [fill, *labels[place][1:]]
    implementation.expect_refusal("shift_right", labels, mentions=mentions, **arguments)


@check("T15", needs="shift_right", kind="form", case=targets())
def test_shift_right_must_be_pure(implementation: Subject, case: Targets) -> None:
    expect_pure(implementation, "shift_right", case.labels, **case.arguments)
    expect_pure(
        implementation, "shift_right", np.array(case.labels), **case.arguments
    )  # an implementation may shift it in place
    expect_same_for_tuples_and_arrays(implementation, "shift_right", case.labels, **case.arguments)
