"""A Trainer whose subclass makes its own loader is audited on what that loader gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedConfig, PreTrainedModel, Trainer, TrainingArguments

from touchstone.auditing.adapters.trainer import subject_of
from touchstone.auditing.finding import NotChecked

ROWS = [{"input_ids": [2, 5, 6 + index, 3], "labels": [-100, 0, 1, -100]} for index in range(20)]


class Tiny(PreTrainedModel):
    """A model with one parameter."""

    config_class = PreTrainedConfig

    def __init__(self) -> None:
        super().__init__(PreTrainedConfig())
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, input_ids: Any, labels: Any = None) -> Any:
        return {"loss": self.weight * input_ids.float().mean()}


def marked(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) + 100 for name in rows[0]}


class Own(Trainer):
    """Makes its own loader, with its own collator."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_size=5, collate_fn=marked, shuffle=True)  # type: ignore[arg-type]


def trainer(kind: type[Trainer], folder: Path) -> Trainer:
    arguments = TrainingArguments(str(folder / "out"), use_cpu=True, report_to="none", remove_unused_columns=False)
    return kind(Tiny(), arguments, train_dataset=ROWS)  # type: ignore[arg-type]


def test_batches_are_those_of_the_own_loader(tmp_path: Path) -> None:
    made = trainer(Own, tmp_path)
    state = torch.get_rng_state()
    subject = subject_of(made)

    assert subject.train is not None
    assert subject.train.batch_size == 5
    assert int(subject.train.batch()["input_ids"].min()) >= 102
    assert subject.train.rows(1) == ROWS[:1]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_stock_trainer_keeps_its_data_set_and_collator(tmp_path: Path) -> None:
    subject = subject_of(trainer(Trainer, tmp_path))

    assert subject.train is not None
    assert subject.train.observed == []
    assert int(subject.train.batch()["input_ids"].min()) == 2


def test_keys_that_are_no_indices_leave_the_batches_only(tmp_path: Path) -> None:
    class ByPair(Own):
        def get_train_dataloader(self) -> DataLoader[Any]:
            class Rows:
                def __len__(self) -> int:
                    return len(ROWS)

                def __getitem__(self, key: tuple[int, int]) -> Any:
                    return ROWS[key[1]]

            pairs = [(0, index) for index in range(20)]
            return DataLoader(Rows(), batch_size=4, sampler=pairs, collate_fn=marked)  # type: ignore[arg-type]

    subject = subject_of(trainer(ByPair, tmp_path))

    assert subject.train is not None
    assert len(subject.train.observed) == 5
    with pytest.raises(NotChecked, match="batches only"):
        subject.train.rows(1)


def test_a_loader_that_fails_leaves_the_data_set(tmp_path: Path) -> None:
    class Fails(Own):
        def get_train_dataloader(self) -> DataLoader[Any]:
            raise RuntimeError("only in training")

    subject = subject_of(trainer(Fails, tmp_path))

    assert subject.train is not None
    assert subject.train.rows(1) == ROWS[:1]
