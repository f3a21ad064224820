"""How long an audit takes before a training may begin: of a model as large as MiniLM, in turns with a training step.

The script's own start, which loads its model and its data, is not timed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, DataCollatorForTokenClassification, Trainer, TrainingArguments
from transformers.models.bert.modeling_bert import BertForTokenClassification

from touchstone.auditing.audit import audit
from touchstone.auditing.finding import Report
from touchstone.auditing.probe import INTERNAL, Budget
from touchstone.records.timing import AuditTime
from touchstone.stages import align_labels
from touchstone.suite.throughput.data import Data
from touchstone.suite.throughput.found import AUDITS

GOALS: dict[Budget, float] = {"fast": 10.0, "default": 60.0}
"""Seconds on two cores, by budget."""
ROUNDS = 3
BATCH, TOKENS = 16, 128
ROWS = {"train": 288, "evaluation": 64}
"""As many as the embedded sentences fill, since none may be in both splits."""
MINILM: dict[str, Any] = {
    "num_hidden_layers": 6,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
"""The shape of MiniLM-L6: 22 million weights, with the table of 30522 word pieces that is BertConfig's own."""


@pytest.fixture(scope="module")
def rows(data: Data) -> Dataset:
    """Rows of 128 tokens: sentences are joined until a row is full, and each is used once."""
    sentences = data.sentences
    made: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": []}
    rest = zip(sentences.words, sentences.gold, strict=True)
    for _ in range(sum(ROWS.values())):
        words: list[str] = []
        gold: list[int] = []
        while len(words) < TOKENS:
            more, tags = next(rest)
            words += more
            gold += tags.tolist()
        encoded = sentences.tokenizer(words, is_split_into_words=True, truncation=True, max_length=TOKENS)
        kept = 1 + max(word for word in encoded.word_ids() if word is not None)
        made["input_ids"].append(encoded["input_ids"])
        made["attention_mask"].append(encoded["attention_mask"])
        made["labels"].append(align_labels(gold[:kept], word_ids=encoded.word_ids(), names=sentences.names))
    return Dataset.from_dict(made)


def make_trainer(rows: Dataset, data: Data, folder: Path) -> Trainer:
    """Return a trainer that is ready to train on the rows."""
    names = dict(enumerate(data.sentences.names))
    config = BertConfig(**MINILM, id2label=names, label2id={name: number for number, name in names.items()})
    return Trainer(
        BertForTokenClassification(config),
        TrainingArguments(
            str(folder),
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            dataloader_pin_memory=False,
            use_cpu=True,
            report_to="none",
        ),
        DataCollatorForTokenClassification(data.sentences.tokenizer),
        train_dataset=rows.select(range(ROWS["train"])),
        eval_dataset=rows.select(range(ROWS["train"], len(rows))),
        processing_class=data.sentences.tokenizer,
        compute_metrics=_accuracy,
    )


def _accuracy(prediction: Any) -> dict[str, float]:
    labelled = prediction.label_ids != -100
    right = (prediction.predictions.argmax(-1) == prediction.label_ids) & labelled
    return {"accuracy": float(np.sum(right) / np.sum(labelled))}


def time_a_step(trainer: Trainer) -> float:
    """Return the seconds of one forward and backward pass and one optimizer step, after one that is not timed."""
    model: Any = trainer.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    batch = next(iter(trainer.get_train_dataloader()))
    model.train()
    for _ in range(2):
        start = time.perf_counter()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - start
    return seconds


@pytest.mark.parametrize("budget", list(GOALS))
def test_audit_is_done_within_its_budget(
    budget: Budget, rows: Dataset, data: Data, benchmark: Any, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """As for the stages, the goal is missed if no round reached it."""
    steps: list[float] = []
    seconds: list[float] = []
    reports: list[Report] = []

    def prepare() -> tuple[tuple[Trainer], dict[str, Any]]:
        steps.append(time_a_step(make_trainer(rows, data, tmp_path)))
        return (make_trainer(rows, data, tmp_path),), {}

    def run(trainer: Trainer) -> None:
        start = time.perf_counter()
        reports.append(audit(trainer, budget=budget))
        seconds.append(time.perf_counter() - start)

    benchmark.group = "audit"
    benchmark.pedantic(run, setup=prepare, rounds=ROUNDS)
    report = reports[-1]
    wrong = [each for each in report if each.outcome == "fail" or INTERNAL in each.message]
    assert wrong == [], str(report)
    checked = sum(each.outcome != "not-checked" for each in report)
    found = AuditTime(
        budget=budget, probes=checked, seconds=tuple(seconds), step_seconds=tuple(steps), most=GOALS[budget]
    )
    benchmark.extra_info |= {"training_steps": round(found.steps, 2), "probes": checked}
    pytestconfig.stash.setdefault(AUDITS, []).append(found)
    if not found.reached:
        pytest.fail(
            f"an audit with the budget {budget} takes {min(seconds):.3g} to {max(seconds):.3g} s, "
            f"but the goal is {found.most:g} s",
            pytrace=False,
        )
