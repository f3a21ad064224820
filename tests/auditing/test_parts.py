"""An audit of plain parts: what it accepts, and what it leaves as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler

import touchstone
from touchstone.auditing.finding import NotChecked
from touchstone.auditing.parts import fresh, subject_of

ROWS = [{"input_ids": [2, 5, 6 + index, 3], "labels": [-100, 0, 1, -100]} for index in range(20)]


class Words:
    """A tokenizer of ids."""

    all_special_ids = (2, 3)
    pad_token_id, cls_token_id, sep_token_id = 0, 2, 3

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"w{each}" for each in ids]


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(ROWS, batch_size=4, collate_fn=collate, **options)  # type: ignore[arg-type]


def test_a_data_set_with_its_collator_is_audited() -> None:
    report = touchstone.audit(
        dataset=ROWS, collator=collate, tokenizer=Words(), names=["O", "B-PER"], probes=["special-tokens-unlabelled"]
    )

    assert report.task == "token-classification"
    assert report.counts["pass"] == 1
    assert [row[0] for row in report.batch[0].rows] == ["w2", "w5", "w6", "w3"]


def test_a_fault_in_a_loader_is_found() -> None:
    rows = [row | {"labels": [0, 0, 1, 0]} for row in ROWS]
    report = touchstone.audit(
        loader=DataLoader(rows, batch_size=4, collate_fn=collate),  # type: ignore[arg-type]
        tokenizer=Words(),
        task="token-classification",
        probes=["special-tokens-unlabelled"],
    )

    assert report.exit_code == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_same_batches_after_the_audit(workers: int) -> None:
    generator = torch.Generator().manual_seed(5)
    audited = loader(shuffle=True, generator=generator, num_workers=workers, persistent_workers=workers > 0)
    expected = [batch["input_ids"].tolist() for batch in loader(shuffle=True, generator=copy.deepcopy(generator))]
    state = torch.get_rng_state()

    subject = subject_of(loader=audited, tokenizer=Words())

    assert torch.equal(torch.get_rng_state(), state)
    assert [batch["input_ids"].tolist() for batch in audited] == expected
    assert subject.train is not None
    assert subject.train.observed[0]["input_ids"].tolist() == expected[0]


def test_a_loader_in_use_goes_on_where_it_was() -> None:
    audited = loader(shuffle=True, generator=torch.Generator().manual_seed(1))
    alone = [batch["input_ids"].tolist() for batch in copy.deepcopy(audited)]
    batches = iter(audited)
    first = next(batches)["input_ids"].tolist()

    subject_of(loader=audited)

    assert [first, *(batch["input_ids"].tolist() for batch in batches)] == alone


def test_a_sampler_without_a_generator_leaves_the_global_one() -> None:
    torch.manual_seed(3)
    expected = [batch["input_ids"].tolist() for batch in loader(sampler=RandomSampler(ROWS))]
    torch.manual_seed(3)
    audited = loader(sampler=RandomSampler(ROWS))

    subject_of(loader=audited)

    assert [batch["input_ids"].tolist() for batch in audited] == expected


class Stream(IterableDataset[Any]):
    """A stream that counts what has been read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[Any]:
        for row in ROWS:
            self.read += 1
            yield row


def test_a_stream_is_read_from_a_copy() -> None:
    stream = Stream()
    subject = subject_of(loader=DataLoader(stream, batch_size=4, collate_fn=collate))

    assert stream.read == 0
    assert subject.train is not None
    assert len(subject.train.observed) == 5
    with pytest.raises(NotChecked, match="pass dataset="):
        subject.train.rows(1)


def test_a_generator_is_never_consumed() -> None:
    batches = (collate(ROWS[start : start + 4]) for start in range(0, 20, 4))

    report = touchstone.audit(
        loader=batches, tokenizer=Words(), task="token-classification", probes=["special-tokens-unlabelled"]
    )

    assert "can be read only once" in report.findings[0].message
    assert len(list(batches)) == 5


def test_a_stream_over_an_open_file_is_not_checked() -> None:
    class Once(IterableDataset[Any]):
        def __init__(self) -> None:
            self.rows = iter(zip(ROWS, ROWS, strict=True)), (row for row in ROWS)

        def __iter__(self) -> Iterator[Any]:
            return self.rows[1]

    with pytest.raises(NotChecked, match="cannot be copied"):
        fresh(DataLoader(Once(), batch_size=4, collate_fn=collate))


def test_a_list_of_batches_is_a_loader() -> None:
    subject = subject_of(loader=[collate(ROWS[:4])], tokenizer=Words(), names=["O", "B-PER"])

    assert subject.task == "token-classification"
    assert subject.train is not None
    assert subject.train.batch_size == 4


def test_batches_that_are_tuples_are_not_checked_with_the_reason() -> None:
    batches = [(torch.zeros(2, 3), torch.zeros(2, 3))]

    report = touchstone.audit(
        loader=batches, tokenizer=Words(), task="token-classification", probes=["special-tokens-unlabelled"]
    )

    assert "tuple" in report.findings[0].message


def test_a_model_alone_is_audited() -> None:
    report = touchstone.audit(model=nn.Linear(2, 2), budget="fast")

    assert report.task == "unknown"
    assert report.subject == "model"


def test_evaluate_gets_a_copy_of_the_model() -> None:
    model = nn.Linear(2, 2)
    given = []
    subject = subject_of(model=model, evaluate=lambda copied: given.append(copied) or {"loss": 1.0})

    assert subject.evaluate is not None
    assert subject.evaluate(8).metrics == {"loss": 1.0}
    assert given[0] is not model
    with pytest.raises(NotChecked, match="cannot be chosen"):
        subject.evaluate(1)


def test_an_evaluation_that_trains_is_found() -> None:
    def evaluate(model: nn.Module) -> dict[str, float]:
        loss = model(torch.ones(1, 2)).sum()
        loss.backward()
        with torch.no_grad():
            next(model.parameters()).add_(1)
        return {"loss": float(loss)}

    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    before = copy.deepcopy(model.state_dict())
    subject = subject_of(model=model, evaluate=evaluate)

    assert subject.evaluate is not None
    record = subject.evaluate(quiet=False)

    assert record.changed == ["0.weight"]
    assert record.leftover
    assert record.gradient
    assert "1" in record.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_names_may_be_a_dict_of_ids() -> None:
    assert subject_of(dataset=ROWS, names={1: "B-PER", 0: "O"}).names == ["O", "B-PER"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "there is nothing to audit"),
        ({"tokenizer": Words()}, "there is nothing to audit"),
        ({"dataset": ROWS, "loader": [ROWS]}, "dataset= and loader= are both given"),
        ({"loader": [ROWS], "collator": collate}, "collator= needs dataset=: the loader has"),
        ({"model": nn.Linear(2, 2), "collator": collate}, "collator= needs dataset="),
        ({"dataset": ROWS, "collator": "default"}, "collator= is the text 'default', which cannot be called"),
        ({"dataset": {"train": ROWS}}, r"pass one split, ...\['train'\]"),
        ({"dataset": "conll2003"}, "dataset= is the text 'conll2003'"),
        ({"dataset": loader()}, "pass it as loader="),
        ({"dataset": 3}, "dataset= is a int"),
        ({"loader": 3}, "loader= is a int"),
        ({"dataset": ROWS, "tokenizer": "bert-base-cased"}, "AutoTokenizer.from_pretrained"),
        ({"model": "bert-base-cased"}, "pass a torch.nn.Module"),
        ({"dataset": ROWS, "evaluate": lambda model: {}}, "evaluate= needs model="),
        ({"dataset": ROWS, "names": "O"}, "names= is the text 'O'"),
        ({"dataset": ROWS, "names": {1: "O"}}, "in the order of ids"),
        ({"loader": [ROWS], "raw": ROWS}, "raw= needs dataset="),
        ({"dataset": ROWS, "columns": ["tokens"]}, "columns= names columns of raw="),
        ({"trainer": ROWS}, r"audit\(list\): this is no transformers.Trainer"),
    ],
)
def test_wrong_combinations_are_one_error_that_names_the_argument(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        touchstone.audit(**parts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "quick"}, "'quick' is no budget: possible are fast, default, deep"),
        ({"task": "token-clasification"}, "did you mean token-classification"),
    ],
)
def test_wrong_names_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        touchstone.audit(dataset=ROWS, **options)  # type: ignore[arg-type]
