"""What section 7.3 of the course does with a Trainer: masked language modelling with DistilBERT."""

import math

from datasets import load_dataset
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

checkpoint = "tiny-distilbert"
chunk_size = 128
batch_size = 64
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForMaskedLM.from_pretrained(checkpoint)
raw = load_dataset("json", data_files={"train": "documents.train.jsonl", "test": "documents.validation.jsonl"})


def tokenize(rows):
    encoded = tokenizer(rows["text"])
    if tokenizer.is_fast:
        encoded["word_ids"] = [encoded.word_ids(index) for index in range(len(encoded["input_ids"]))]
    return encoded


def group(rows):
    """Join all texts and cut them into chunks. A remainder is dropped."""
    joined = {name: [each for row in column for each in row] for name, column in rows.items()}
    length = len(joined["input_ids"]) // chunk_size * chunk_size
    chunks = {
        name: [column[start : start + chunk_size] for start in range(0, length, chunk_size)]
        for name, column in joined.items()
    }
    chunks["labels"] = chunks["input_ids"].copy()
    return chunks


chunked = raw.map(tokenize, batched=True, remove_columns=["text"]).map(group, batched=True)
split = chunked["train"].train_test_split(test_size=0.1, seed=42)
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        eval_strategy="epoch",
        learning_rate=2e-5,
        weight_decay=0.01,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        report_to="none",
    ),
    train_dataset=split["train"],
    eval_dataset=split["test"],
    data_collator=DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15),
    processing_class=tokenizer,
)
print("perplexity", math.exp(trainer.evaluate()["eval_loss"]))
trainer.train()
