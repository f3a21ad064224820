"""Masks, padding and collators are judged by what they do to the loss and to the data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch

from tests.auditing.samples import collate, look, tagged, tokenizer
from touchstone.auditing.subject import Split, Subject


def subject(rows: Any, *, made: Any = collate, task: str = "masked-lm", **options: Any) -> Subject:
    tokens = tokenizer(**options)
    return Subject("", task, None, tokens, train=Split("train", rows, made, 2))


def row(*ids: int, mask: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {"input_ids": list(ids), "attention_mask": mask or [1] * len(ids), **more}


def test_the_end_of_a_text_is_no_padding_where_both_are_one_token() -> None:
    rows = [row(4, 5, 3, 3, 3, mask=[1, 1, 1, 0, 0]), row(4, 5, 6, 7, 3)]
    marks = {"pad_token": "[SEP]", "eos_token": "[SEP]"}
    assert look("mask-marks-padding", subject(rows, **marks)).outcome == "pass"


def test_padding_with_another_id_is_a_warning_where_the_mask_hides_it() -> None:
    rows = [row(2, 4, 3, 9, 9, mask=[1, 1, 1, 0, 0]), row(2, 4, 5, 6, 3)]
    finding = look("mask-marks-padding", subject(rows))
    assert finding.outcome == "warn"
    assert "padded with the id 9" in finding.message


def test_a_mask_that_hides_words_is_a_fault() -> None:
    rows = [row(2, 4, 5, 6, 3, mask=[1, 0, 1, 1, 1]), row(2, 4, 5, 6, 3)]
    assert look("mask-marks-padding", subject(rows)).outcome == "fail"


def test_a_causal_model_does_not_see_padding_at_the_right() -> None:
    rows = [row(2, 4, 3, 0, 0), row(2, 4, 5, 6, 3)]
    assert look("mask-marks-padding", subject(rows, task="causal-lm")).outcome == "warn"
    assert look("mask-marks-padding", subject(rows)).outcome == "fail"


class MaskedLoss(torch.nn.Module):
    """A head whose loss leaves out what the mask hides, whatever its label."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(14, 5)

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any = None) -> dict[str, Any]:
        logits = self.table(input_ids)
        seen = attention_mask.bool() & (labels != -100)
        return {"loss": torch.nn.functional.cross_entropy(logits[seen], labels[seen]), "logits": logits}


def test_labels_on_padding_that_the_loss_ignores_are_a_warning() -> None:
    rows = [row(2, 4, 3, 0, mask=[1, 1, 1, 0], labels=[-100, 1, -100, 0]), row(2, 4, 5, 3, labels=[-100, 1, 2, -100])]
    judged = subject(rows, task="token-classification")
    assert look("padding-unlabelled", judged).outcome == "fail"
    judged = subject(rows, task="token-classification")
    judged.model = MaskedLoss()
    assert look("padding-unlabelled", judged).outcome == "warn"


def test_an_unknown_word_may_have_a_label() -> None:
    rows = [row(2, 1, 3, labels=[-100, 1, -100])] * 2
    assert look("special-tokens-unlabelled", subject(rows, task="token-classification")).outcome == "pass"


def test_rows_of_a_stream_are_looked_at_without_advancing_it() -> None:
    class Stream(torch.utils.data.IterableDataset[dict[str, Any]]):
        def __init__(self) -> None:
            self.read = 0

        def __iter__(self) -> Iterator[dict[str, Any]]:
            while True:
                self.read += 1
                yield row(2, 4, 3)

    stream = Stream()
    assert look("mask-marks-padding", subject(stream)).outcome == "pass"
    assert stream.read == 0


def popping(rows: list[dict[str, Any]]) -> dict[str, Any]:
    labels = [each.pop("labels") for each in rows]
    return {**collate(rows), "labels": torch.tensor(labels)}


def test_a_collator_that_changes_rows_is_a_fault_only_if_the_data_keep_the_change() -> None:
    rows = [row(2, 4, 3, labels=[-100, 1, -100]) for _ in range(3)]
    kept = look("collator-keeps-its-rows", subject(rows, made=popping))
    assert kept.outcome == "fail"
    assert "KeyError" in kept.cause

    class Fresh:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {key: list(value) for key, value in rows[index].items()}

    assert look("collator-keeps-its-rows", subject(Fresh(), made=popping)).outcome == "warn"


def test_a_collator_may_draw_at_random() -> None:
    def noisy(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {**collate(rows), "noise": torch.tensor([random.random() for _ in rows])}

    judged = look("collator-repeats-itself", subject([row(2, 4, 3)] * 2, made=noisy, task="token-classification"))
    assert judged.outcome == "warn"
    assert "augment" in judged.cause


def test_labels_of_a_regression_have_no_range() -> None:
    judged = tagged()
    assert judged.train is not None
    judged.train.collate = lambda rows: {**collate(rows), "labels": torch.rand(len(rows))}
    assert look("labels-in-range", judged).outcome in ("pass", "not-checked")
