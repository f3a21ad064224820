"""Causal language modelling with a Trainer: documents that end with their end of text, joined and cut into chunks."""

from itertools import chain

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, default_data_collator

tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
model = AutoModelForCausalLM.from_pretrained("tiny-gpt2")
raw = load_dataset("json", data_files={"train": "documents.train.jsonl", "validation": "documents.validation.jsonl"})
block_size = 64


def tokenize_function(examples):
    return tokenizer([text + tokenizer.eos_token for text in examples["text"]])


def group_texts(examples):
    concatenated = {k: list(chain(*examples[k])) for k in examples.keys()}
    total_length = len(concatenated["input_ids"])
    total_length = (total_length // block_size) * block_size
    result = {k: [t[i : i + block_size] for i in range(0, total_length, block_size)] for k, t in concatenated.items()}
    result["labels"] = result["input_ids"].copy()
    return result


tokenized = raw.map(tokenize_function, batched=True, remove_columns=["text"])
lm_datasets = tokenized.map(group_texts, batched=True)
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        learning_rate=5e-4,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        num_train_epochs=2,
        report_to="none",
    ),
    train_dataset=lm_datasets["train"],
    eval_dataset=lm_datasets["validation"],
    data_collator=default_data_collator,
    processing_class=tokenizer,
)
trainer.train()
