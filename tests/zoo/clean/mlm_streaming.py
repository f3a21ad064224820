#!/usr/bin/env python
"""Masked language modelling over a streamed data set: nothing is stored, the number of steps is given."""

from datasets import load_dataset
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

MODEL, LENGTH, MASKED = "tiny-bert", 64, 0.15

tok = AutoTokenizer.from_pretrained(MODEL)
net = AutoModelForMaskedLM.from_pretrained(MODEL)

train = load_dataset("json", data_files="documents.train.jsonl", split="train", streaming=True)
valid = load_dataset("json", data_files="documents.validation.jsonl", split="train")


def to_ids(examples):
    return tok(examples["text"], truncation=True, max_length=LENGTH, return_special_tokens_mask=True)


train = train.shuffle(seed=3, buffer_size=100).map(to_ids, batched=True, remove_columns=["text"])
valid = valid.map(to_ids, batched=True, remove_columns=["text"])

args = TrainingArguments(
    output_dir="mlm-stream",
    max_steps=20,
    per_device_train_batch_size=8,
    learning_rate=5e-4,
    warmup_steps=2,
    logging_steps=5,
    save_strategy="no",
    report_to="none",
)
collator = DataCollatorForLanguageModeling(tokenizer=tok, mlm=True, mlm_probability=MASKED)
trainer = Trainer(model=net, args=args, data_collator=collator, train_dataset=train, eval_dataset=valid)
result = trainer.train()
print(result.metrics)
print(trainer.evaluate())
