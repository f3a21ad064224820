"""Supervised fine-tuning on headlines: the prompt has no labels, and the completion ends with the end of text."""

import torch
from datasets import load_dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained("tiny-gpt2")
raw = load_dataset("json", data_files={"train": "headlines.train.jsonl", "validation": "headlines.validation.jsonl"})
MAX_LENGTH = 256


def build(example):
    prompt = f"### Article:\n{example['document']}\n### Headline:\n"
    prompt_ids = tokenizer(prompt)["input_ids"]
    answer_ids = tokenizer(example["summary"])["input_ids"] + [tokenizer.eos_token_id]
    input_ids = (prompt_ids + answer_ids)[:MAX_LENGTH]
    labels = ([-100] * len(prompt_ids) + answer_ids)[:MAX_LENGTH]
    return {"input_ids": input_ids, "labels": labels}


def collate(features):
    input_ids = [torch.tensor(feature["input_ids"]) for feature in features]
    labels = [torch.tensor(feature["labels"]) for feature in features]
    mask = [torch.ones(len(ids), dtype=torch.long) for ids in input_ids]
    return {
        "input_ids": pad_sequence(input_ids, batch_first=True, padding_value=tokenizer.pad_token_id),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        "attention_mask": pad_sequence(mask, batch_first=True, padding_value=0),
    }


dataset = raw.map(build, remove_columns=raw["train"].column_names)
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        learning_rate=5e-4,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        report_to="none",
    ),
    train_dataset=dataset["train"],
    eval_dataset=dataset["validation"],
    data_collator=collate,
    processing_class=tokenizer,
)
trainer.train()
