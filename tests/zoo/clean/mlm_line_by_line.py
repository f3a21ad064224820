"""Masked language modelling, one document a row, padded by the collator; nothing but [MASK] replaces a token."""

from datasets import load_dataset
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
model = AutoModelForMaskedLM.from_pretrained("tiny-bert")
raw = load_dataset("json", data_files={"train": "documents.train.jsonl", "validation": "documents.validation.jsonl"})
raw = raw.filter(lambda example: len(example["text"]) > 0 and not example["text"].isspace())


def tokenize(examples):
    return tokenizer(examples["text"], truncation=True, max_length=128, return_special_tokens_mask=True)


tokenized = raw.map(tokenize, batched=True, remove_columns=["text"])
collator = DataCollatorForLanguageModeling(
    tokenizer,
    mlm_probability=0.3,
    mask_replace_prob=1.0,
    random_replace_prob=0.0,
    pad_to_multiple_of=8,
)
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        learning_rate=2e-4,
        per_device_train_batch_size=8,
        num_train_epochs=2,
        report_to="none",
    ),
    train_dataset=tokenized["train"],
    eval_dataset=tokenized["validation"],
    data_collator=collator,
    processing_class=tokenizer,
)
trainer.train()
