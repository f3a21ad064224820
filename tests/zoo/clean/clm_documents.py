"""Causal language modelling, one document a row, with a padding token of its own and an end of text at every end."""

from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
model = AutoModelForCausalLM.from_pretrained("tiny-gpt2")
tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
model.resize_token_embeddings(len(tokenizer))
model.config.pad_token_id = tokenizer.pad_token_id
raw = load_dataset("json", data_files={"train": "documents.train.jsonl", "validation": "documents.validation.jsonl"})


def tokenize(example):
    ids = tokenizer(example["text"], truncation=True, max_length=255)["input_ids"]
    ids = ids + [tokenizer.eos_token_id]
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}


tokenized = raw.map(tokenize, remove_columns=["text"])
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        learning_rate=5e-4,
        per_device_train_batch_size=8,
        num_train_epochs=2,
        report_to="none",
    ),
    train_dataset=tokenized["train"],
    eval_dataset=tokenized["validation"],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    processing_class=tokenizer,
)
trainer.train()
