"""Trainers with PEFT: adapters are audited without false alarms, and the model below them is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.auditing.test_step import bert, gpt2, look, rows, trainer_of
from touchstone.auditing.adapters.trainer import subject_of
from touchstone.auditing.probe import load_probes
from touchstone.auditing.subject import Subject

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT reads it


def subject(
    folder: Path, model: Any, task: str, *, causal: bool = False, accumulation: int = 1, **options: Any
) -> Subject:
    data = [{**row, "labels": row["input_ids"]} for row in rows()] if causal else rows()
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type=task, r=2, **options))
    return subject_of(
        trainer_of(folder, adapted, data=data, gradient_accumulation_steps=accumulation, label_names=["labels"])
    )


@pytest.mark.parametrize(
    "options", [{}, {"modules_to_save": ["classifier"]}, {"use_dora": True}, {"bias": "lora_only"}]
)
def test_adapters_of_a_token_classifier_have_no_fault(options: dict[str, Any], tmp_path: Path) -> None:
    audited = subject(tmp_path, bert(), "TOKEN_CLS", target_modules=["query", "value"], **options)
    assert audited.task == "token-classification"
    for name, each in load_probes().items():
        if each.group in ("loss and step", "optimizer and schedule", "mode"):
            assert look(audited, name).outcome in ("pass", "warn", "not-checked"), name
    assert look(audited, "every-parameter-learns").outcome == "pass"


def test_adapters_of_a_causal_model_have_no_fault(tmp_path: Path) -> None:
    audited = subject(tmp_path, gpt2(), "CAUSAL_LM", causal=True, target_modules=["c_attn"], fan_in_fan_out=True)
    assert audited.task == "causal-lm"
    for name, each in load_probes().items():
        if each.group in ("loss and step", "optimizer and schedule", "mode"):
            assert look(audited, name).outcome in ("pass", "warn", "not-checked"), name
    assert "GPT2LMHeadModel" in look(audited, "loss-is-the-mean-over-labels").cause


def test_the_head_below_the_adapters_is_named(tmp_path: Path) -> None:
    audited = subject(tmp_path, bert(), "TOKEN_CLS", target_modules=["query"], accumulation=4)
    finding = look(audited, "accumulation-divided")
    if finding.outcome == "pass":
        pytest.skip("this version of transformers divides")
    assert "BertForTokenClassification ignores num_items_in_batch" in finding.cause
    assert "model.get_base_model().accepts_loss_kwargs = False" in finding.cause


def test_adapters_whose_matrices_are_both_zero_are_a_fault(tmp_path: Path) -> None:
    audited = subject(tmp_path, bert(), "TOKEN_CLS", target_modules=["query", "value"])
    for name, each in audited.need("model").named_parameters():
        if "lora_A" in name:
            each.data.zero_()
    finding = look(audited, "every-parameter-learns")
    assert finding.outcome == "fail"
    assert "lora_A" in finding.cause
