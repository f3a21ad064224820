"""Batches of tuples get the names by which the model received their parts."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import TensorDataset, default_collate

from touchstone.auditing.adapters.loop_batches import NamedBatches
from touchstone.auditing.reading.pairs import name_of, named_value

IDS = torch.tensor([[2, 5, 6, 3, 0], [2, 7, 3, 0, 0], [2, 8, 9, 4, 3]])


def batches(received: dict[str, Any], *tensors: torch.Tensor) -> NamedBatches:
    return NamedBatches(default_collate, TensorDataset(*tensors), [0, 1], received)


def test_parts_of_a_tuple_are_found_among_the_arguments() -> None:
    mask, tags = (IDS != 0).long(), IDS + 10
    made = batches({"labels": tags[:2], "attention_mask": mask[:2], "input_ids": IDS[:2]}, IDS, mask, tags)
    batch = made([(IDS[2], mask[2], tags[2])])
    assert {name: value.tolist() for name, value in batch.items()} == {
        "input_ids": [IDS[2].tolist()],
        "attention_mask": [mask[2].tolist()],
        "labels": [tags[2].tolist()],
    }


def test_labels_that_the_loop_makes_are_made_again() -> None:
    labels = IDS[:, 1:].masked_fill(IDS[:, 1:] == 0, -100)
    made = batches({"input_ids": IDS[:2], "labels": labels[:2], "decoder_input_ids": IDS[:2, :-1]}, IDS)
    batch = made([(IDS[2],)])
    assert batch["labels"].tolist() == [[8, 9, 4, 3]]
    assert batch["decoder_input_ids"].tolist() == [[2, 8, 9, 4]]
    padded = made([(torch.tensor([2, 5, 3, 0, 0]),)])
    assert padded["labels"].tolist() == [[5, 3, -100, -100]]


def test_a_batch_whose_ids_are_not_found_is_left_as_it_is() -> None:
    made = batches({"input_ids": IDS[:2] + 1}, IDS)
    assert isinstance(made([(IDS[2],)]), list)


def test_random_masks_of_the_loop_are_no_rule() -> None:
    labels = IDS.clone()
    labels[0, 1] = labels[1, 2] = -100  # 5 and 3 there, and 3 kept elsewhere
    made = batches({"input_ids": IDS[:2], "labels": labels[:2]}, IDS)
    assert set(made([(IDS[2],)])) == {"input_ids"}


def test_a_named_collator_keeps_the_name_and_the_settings_of_its_own() -> None:
    class Masking:
        mlm_probability = 0.3

        def __call__(self, rows: list[Any]) -> Any:
            return default_collate(rows)

    made = NamedBatches(Masking(), TensorDataset(IDS), [0], {"input_ids": IDS[:1]})
    assert name_of(made) == "Masking"
    assert named_value(made, ["mlm_probability"]) == ("mlm_probability", 0.3)
