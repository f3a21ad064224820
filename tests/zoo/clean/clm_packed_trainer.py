"""A causal language model on packed documents with a Trainer: positions begin anew, and a mask keeps texts apart."""

import json

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

tok = AutoTokenizer.from_pretrained("tiny-gpt2")
MAX = 192


def pack(path):
    rows, cur = [], {"input_ids": [], "position_ids": [], "labels": []}
    for line in open(path):
        ids = tok(json.loads(line)["text"])["input_ids"][:60] + [tok.eos_token_id]
        if len(cur["input_ids"]) + len(ids) > MAX:
            rows.append(cur)
            cur = {"input_ids": [], "position_ids": [], "labels": []}
        cur["input_ids"] += ids
        cur["position_ids"] += list(range(len(ids)))
        cur["labels"] += [-100] + ids[1:]
    rows.append(cur)
    return Dataset.from_list(rows)


def collate(features):
    n = max(len(f["input_ids"]) for f in features)
    B = len(features)
    out = {
        "input_ids": torch.full((B, n), tok.eos_token_id),
        "position_ids": torch.zeros(B, n, dtype=torch.long),
        "labels": torch.full((B, n), -100),
    }
    mask = torch.zeros(B, n, n, dtype=torch.bool)
    for i, f in enumerate(features):
        k = len(f["input_ids"])
        for key in out:
            out[key][i, :k] = torch.tensor(f[key])
        doc = torch.tensor(f["position_ids"]).eq(0).cumsum(0)
        mask[i, :k, :k] = (doc[:, None] == doc[None, :]) & torch.tril(torch.ones(k, k, dtype=torch.bool))
        mask[i, range(n), range(n)] = True
    out["attention_mask"] = torch.where(mask[:, None], 0.0, torch.finfo(torch.float32).min)
    return out


Trainer(
    model=AutoModelForCausalLM.from_pretrained("tiny-gpt2"),
    args=TrainingArguments(
        "packed",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        num_train_epochs=2,
        report_to="none",
        average_tokens_across_devices=False,
    ),
    train_dataset=pack("documents.train.jsonl"),
    eval_dataset=pack("documents.validation.jsonl"),
    data_collator=collate,
    processing_class=tok,
).train()
