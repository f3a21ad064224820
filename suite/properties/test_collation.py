"""Checks P1-P9 of docs/contract.md: `pad_batch`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from touchstone.properties import tiny_model
from touchstone.properties.check import check
from touchstone.properties.failure import expect, expect_close, expect_that
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.collation import (
    FILLS,
    SCALARS,
    Batch,
    Feature,
    alike_batches,
    batches,
    labelled_features,
    sides,
)
from touchstone.properties.subject import Subject
from touchstone.properties.values import plain


def pad(implementation: Subject, case: Batch) -> dict[str, Any]:
    result: dict[str, Any] = implementation.pad_batch(case.features, **case.arguments)
    return result


def columns_of(case: Batch) -> list[str]:
    return [name for name, value in case.features[0].items() if isinstance(value, list)]


def own_values(feature: Feature, name: str) -> list[int]:
    """Return the expected column, with -1 for `None`."""
    return [-1 if value is None else value for value in feature[name]]


def padded(case: Batch, row: int, values: list[int], fill: int) -> list[int]:
    """Return the expected row."""
    result = [fill] * case.width
    result[case.place(row)] = values
    return result


@check("P1", needs="pad_batch", case=batches())
def test_the_width_must_be_that_of_the_longest_or_the_length_rounded_up(implementation: Subject, case: Batch) -> None:
    result = implementation.raw("pad_batch", case.features, **case.arguments)
    shape = (len(case.features), case.width)
    for name in sorted(set(columns_of(case)) & set(result)):  # P5 checks for missing columns
        array = np.asarray(result[name])
        expect_that(array.shape == shape, expected=f"shape {shape} of {name!r}", came=f"{array.shape}")
        if array.size:
            expect_that(array.dtype == np.int64, expected=f"int64 in {name!r}", came=str(array.dtype))


@check("P2", needs="pad_batch", case=batches())
def test_the_attention_mask_must_be_zero_exactly_at_padding_and_where_it_was(
    implementation: Subject, case: Batch
) -> None:
    came = pad(implementation, case).get("attention_mask")
    masks = [feature.get("attention_mask", [1] * len(feature["input_ids"])) for feature in case.features]
    expect([padded(case, row, mask, 0) for row, mask in enumerate(masks)], came, where="attention_mask")


@check("P3", needs="pad_batch", case=batches(labels=True))
def test_labels_must_be_ignored_exactly_at_padding_and_where_they_were(implementation: Subject, case: Batch) -> None:
    came = pad(implementation, case).get("labels")
    expected = [padded(case, row, feature["labels"], -100) for row, feature in enumerate(case.features)]
    expect(expected, came, where="labels")


@check("P3", needs="pad_batch", side=sides, lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_a_real_end_of_sequence_must_keep_its_label_even_if_its_id_is_the_padding(
    implementation: Subject, side: str, lengths: list[int]
) -> None:
    end = 7
    ids = [[*range(1, length), end] for length in lengths]
    features = [{"input_ids": row, "attention_mask": [1] * len(row), "labels": list(row)} for row in ids]
    case = Batch(features, end, side)
    expect([padded(case, row, values, -100) for row, values in enumerate(ids)], pad(implementation, case).get("labels"))


@check("P4", needs="pad_batch", case=batches())
def test_removing_the_padding_must_give_the_input(implementation: Subject, case: Batch) -> None:
    came = pad(implementation, case)
    for name in sorted(set(columns_of(case)) & set(came)):  # P5 checks for missing columns
        kept = [values[case.place(row)] for row, values in enumerate(came[name])]
        expected = [own_values(feature, name) for feature in case.features]
        expect(expected, kept, where=f"{name}, with the padding on the {case.side} removed")


@check("P5", needs="pad_batch", case=batches(scalars=True))
def test_every_column_must_be_kept_and_padded_with_its_own_fill(implementation: Subject, case: Batch) -> None:
    came = pad(implementation, case)
    for name, value in case.features[0].items():
        expect_that(name in came, expected=f"a column {name!r}", came=f"{sorted(came)}")
        if isinstance(value, list):
            fill = case.pad_id if name == "input_ids" else FILLS[name]
            expected = [padded(case, row, own_values(f, name), fill) for row, f in enumerate(case.features)]
            expect(expected, came[name], where=f"column {name!r}, whose fill is {fill}")
        else:
            expect([f[name] for f in case.features], came[name], where=f"column {name!r}, one integer a row")


@check("P6", needs="pad_batch", case=batches(scalars=True), row=st.integers(0, 3))
def test_rows_must_not_depend_on_each_other_and_must_keep_their_order(
    implementation: Subject, case: Batch, row: int
) -> None:
    row %= len(case.features)
    came = {name: values[row] for name, values in pad(implementation, case).items()}
    alone = case.with_(features=[case.features[row]], length=case.width)
    expected = {name: values[0] for name, values in pad(implementation, alone).items()}
    expect(expected, came, where=f"row {row} of the batch, and the same feature alone padded to {case.width}")
    unpadded = pad(implementation, alone.with_(length=None, multiple_of=None))
    for name in unpadded.keys() - SCALARS:
        own = came[name][case.place(row)]
        expect(
            unpadded[name][0], own, where=f"{name} of row {row} in its place in the batch, and alone without padding"
        )


@check("P7", needs="pad_batch", kind="refusal", case=batches())
def test_pad_batch_must_refuse_an_empty_batch(implementation: Subject, case: Batch) -> None:
    implementation.expect_refusal("pad_batch", [], **case.arguments)


@check("P7", needs="pad_batch", kind="refusal", case=batches(), side=st.sampled_from(["RIGHT", "both", "", "top"]))
def test_pad_batch_must_refuse_an_unknown_side(implementation: Subject, case: Batch, side: str) -> None:
    implementation.expect_refusal("pad_batch", case.features, mentions=(side,), **case.arguments | {"side": side})


@check("P7", needs="pad_batch", kind="refusal", case=batches(mask=True), less=st.integers(1, 3))
def test_pad_batch_must_refuse_a_feature_longer_than_the_length(
    implementation: Subject, case: Batch, less: int
) -> None:
    length = max(case.lengths) - less
    if length >= 0:
        row = next(row for row, size in enumerate(case.lengths) if size > length)
        mentions = (row, case.lengths[row], length)
        implementation.expect_refusal(
            "pad_batch", case.features, mentions=mentions, **case.arguments | {"length": length}
        )


@check("P7", needs="pad_batch", kind="refusal", case=batches(mask=True), data=st.data())
def test_pad_batch_must_refuse_columns_of_different_lengths_in_a_feature(
    implementation: Subject, case: Batch, data: Any
) -> None:
    row = data.draw(st.integers(0, len(case.features) - 1))
    features = [dict(feature) for feature in case.features]
    features[row]["attention_mask"] = [*features[row]["attention_mask"], 1]
    implementation.expect_refusal("pad_batch", features, mentions=(row, "attention_mask"), **case.arguments)


@check("P7", needs="pad_batch", kind="refusal", case=batches(mask=True, labels=True), data=st.data())
def test_pad_batch_must_refuse_features_with_different_columns(implementation: Subject, case: Batch, data: Any) -> None:
    features = [dict(feature) for feature in [*case.features, case.features[0]]]
    row = data.draw(st.integers(0, len(features) - 1))
    del features[row]["labels"]
    implementation.expect_refusal("pad_batch", features, mentions=("labels",), **case.arguments)


@check("P7", needs="pad_batch", kind="refusal", case=batches(mask=True))
def test_pad_batch_must_refuse_a_column_without_a_known_fill(implementation: Subject, case: Batch) -> None:
    features = [{**feature, "offsets": list(feature["input_ids"])} for feature in case.features]
    case = case.with_(features=features, length=max(case.lengths) + 1)  # every row has to be filled
    implementation.expect_refusal("pad_batch", features, mentions=("offsets",), **case.arguments)


@check("P7", needs="pad_batch", kind="refusal", case=batches(mask=False), data=st.data())
def test_pad_batch_must_refuse_padded_input_without_a_mask(implementation: Subject, case: Batch, data: Any) -> None:
    row = data.draw(st.integers(0, len(case.features) - 1))
    extra = {"input_ids": case.pad_id, **FILLS}
    features = [dict(feature) for feature in case.features]
    for name in columns_of(case):
        values = features[row][name]
        features[row][name] = [*values, extra[name]] if case.side == "right" else [extra[name], *values]
    case = case.with_(features=features, length=None)
    implementation.expect_refusal("pad_batch", features, mentions=(row, case.pad_id), **case.arguments)


@check("P8", needs="pad_batch", kind="form", case=batches())
def test_pad_batch_must_be_pure(implementation: Subject, case: Batch) -> None:
    expect_pure(implementation, "pad_batch", case.features, **case.arguments)


@check("P8", needs="pad_batch", case=alike_batches())
def test_rows_and_columns_with_equal_values_must_not_share_memory(implementation: Subject, case: Batch) -> None:
    expect_pure(implementation, "pad_batch", case.features, **case.arguments)


@check("P8", needs="pad_batch", kind="form", case=batches())
def test_pad_batch_must_accept_tuples_and_arrays(implementation: Subject, case: Batch) -> None:
    expect_same_for_tuples_and_arrays(implementation, "pad_batch", case.features, **case.arguments)


def loss_of(batch: dict[str, Any]) -> tuple[float, int]:
    """Return the sum of the token losses in nats and their number. Positions count from the first real token."""
    mask = np.asarray(batch["attention_mask"])
    positions = np.clip(mask.cumsum(-1) - 1, 0, None)
    logits = tiny_model.logits(batch["input_ids"], positions=positions, visible=mask[:, None] == 1)
    return tiny_model.loss(logits, batch["labels"])


@check("P9", needs="pad_batch", cost=3, features=labelled_features(), side=sides, extra=st.integers(0, 8))
def test_the_loss_of_a_model_must_not_depend_on_padding(
    implementation: Subject, features: list[Feature], side: str, extra: int
) -> None:
    alone = [loss_of({name: [values] for name, values in feature.items()}) for feature in features]
    length = max(len(feature["input_ids"]) for feature in features) + extra
    came = plain(implementation.pad_batch(features, pad_id=0, side=side, length=length))
    loss, count = loss_of(came)
    expect(sum(number for _, number in alone), count, where="labels that the loss sees")
    # float64 keeps 16 digits; sums in another order lose a few of them
    expect_close(sum(value for value, _ in alone), loss, relative=1e-9, where="sum of the token losses in nats")
