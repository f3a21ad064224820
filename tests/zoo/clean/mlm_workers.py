"""Masked language modelling with a masking collator of one's own, whose generator each worker makes for itself."""

import numpy as np
import torch
from datasets import load_dataset
from transformers import AutoModelForMaskedLM, AutoTokenizer, Trainer, TrainingArguments


class Masking:
    def __init__(self, tokenizer, probability=0.15):
        self.tokenizer = tokenizer
        self.probability = probability
        self.rng = None

    def __call__(self, rows):
        if self.rng is None:
            self.rng = np.random.default_rng(torch.initial_seed())
        batch = self.tokenizer.pad(rows, return_tensors="pt")
        special = batch.pop("special_tokens_mask").bool().numpy()
        ids = batch["input_ids"].numpy()
        chosen = (self.rng.random(ids.shape) < self.probability) & ~special
        labels = np.where(chosen, ids, -100)
        kind = self.rng.random(ids.shape)
        masked = np.where(chosen & (kind < 0.8), self.tokenizer.mask_token_id, ids)
        other = self.rng.integers(len(self.tokenizer), size=ids.shape)
        masked = np.where(chosen & (kind >= 0.9), other, masked)
        batch["input_ids"], batch["labels"] = torch.from_numpy(masked), torch.from_numpy(labels)
        return batch


tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
files = {"train": "documents.train.jsonl", "validation": "documents.validation.jsonl"}
texts = load_dataset("json", data_files=files)


def encode(rows):
    return tokenizer(rows["text"], truncation=True, max_length=96, return_special_tokens_mask=True)


tokens = texts.map(encode, batched=True, remove_columns=texts["train"].column_names)
trainer = Trainer(
    model=AutoModelForMaskedLM.from_pretrained("tiny-bert"),
    args=TrainingArguments(
        output_dir="mlm-workers",
        num_train_epochs=3,
        per_device_train_batch_size=8,
        learning_rate=3e-4,
        dataloader_num_workers=2,
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        seed=5,
    ),
    train_dataset=tokens["train"],
    data_collator=Masking(tokenizer),
)
trainer.train()
