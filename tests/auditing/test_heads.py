"""Heads of other kinds: the task of a subclass, dropout as against sampling, rows that are texts, endless streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from touchstone.auditing.probes.leaks import no_training_example_in_evaluation
from touchstone.auditing.probes.mode import random_in_evaluation
from touchstone.auditing.subject import UNKNOWN, Split, Subject, task_of


class BertForTokenClassification(nn.Module):
    pass


class Tagger(BertForTokenClassification):
    pass


class ElectraForPreTraining(nn.Module):
    pass


@pytest.mark.parametrize(
    ("head", "task"), [(Tagger, "token-classification"), (ElectraForPreTraining, UNKNOWN), (nn.Linear, UNKNOWN)]
)
def test_a_subclass_has_the_task_of_its_head(head: type, task: str) -> None:
    assert task_of(head(1, 1) if head is nn.Linear else head()) == task


class Noisy(nn.Module):
    """Adds dropout, or a noise of its own, whatever the mode."""

    def __init__(self, *, drops: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.drops = drops

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        values = self.weight * input_ids
        return nn.functional.dropout(values, 0.5, training=True) if self.drops else values + torch.randn(4)


def subject_of(model: nn.Module | None, train: Any, evaluation: Any = None) -> Subject:
    splits = [
        None if rows is None else Split(name, rows, lambda rows: {"input_ids": torch.ones(len(rows), 4)}, 2)
        for name, rows in (("train", train), ("evaluation", evaluation))
    ]
    return Subject("test", UNKNOWN, model, train=splits[0], evaluation=splits[1])


@pytest.mark.parametrize(("drops", "outcome"), [(True, "fail"), (False, "warn")])
def test_dropout_in_evaluation_is_a_fault_and_a_sample_is_none(drops: bool, outcome: str) -> None:
    found = random_in_evaluation(subject_of(Noisy(drops=drops), [{"input_ids": [1]}] * 2))

    assert found is not None
    assert found.outcome == outcome


TEXTS = [(f"the text of the row with the number {number}", number % 2) for number in range(60)]


def test_rows_of_texts_are_compared_by_their_texts() -> None:
    leaked = no_training_example_in_evaluation(subject_of(None, TEXTS, TEXTS[:10]))
    clean = no_training_example_in_evaluation(subject_of(None, TEXTS[10:], TEXTS[:10]))

    assert (leaked.outcome, clean.outcome) == ("fail", "pass")


class Endless(torch.utils.data.IterableDataset[Any]):
    """Yields rows again and again."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        for _ in range(20):
            yield from self.rows


def test_a_stream_that_begins_again_does_not_excuse_rows_in_both_splits() -> None:
    rows = [{"input_ids": [number, number + 1]} for number in range(100)]

    found = no_training_example_in_evaluation(subject_of(None, Endless(rows), rows[:20]))

    assert found.outcome == "fail"


def test_texts_that_recur_by_chance_are_no_leak() -> None:
    rows = [{"input_ids": [number * 7 % 11]} for number in range(200)]

    assert no_training_example_in_evaluation(subject_of(None, rows, rows[:20])).outcome == "warn"
