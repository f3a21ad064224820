"""Causal language modelling with a token accuracy and a perplexity over all tokens of the evaluation."""

import math

import torch
from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

model_name = "tiny-gpt2"
tokenizer = AutoTokenizer.from_pretrained(model_name)
tokenizer.add_special_tokens({"pad_token": "<pad>"})
model = AutoModelForCausalLM.from_pretrained(model_name, dtype="float32")
model.resize_token_embeddings(len(tokenizer))
model.config.pad_token_id = tokenizer.pad_token_id

headlines = load_dataset(
    "json", data_files={"train": "headlines.train.jsonl", "validation": "headlines.validation.jsonl"}
)
columns = headlines["train"].column_names


def tokenize(batch):
    texts = [text + tokenizer.eos_token for text in batch["document"]]
    return tokenizer(texts, truncation=True, max_length=128)


tokenized = headlines.map(tokenize, batched=True, remove_columns=columns)


def preprocess_logits_for_metrics(logits, labels):
    if isinstance(logits, tuple):
        logits = logits[0]
    shifted = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2).float(), labels[:, 1:], ignore_index=-100, reduction="none"
    )
    return logits.argmax(dim=-1), shifted


def compute_metrics(eval_preds):
    (preds, losses), labels = eval_preds
    labels = labels[:, 1:]
    preds = preds[:, :-1]
    mask = labels != -100
    mean = float(losses[mask].sum() / mask.sum())
    return {"accuracy": float((preds == labels)[mask].mean()), "perplexity": math.exp(mean)}


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="clm",
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        num_train_epochs=2,
        learning_rate=5e-4,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="perplexity",
        greater_is_better=False,
        report_to=[],
    ),
    train_dataset=tokenized["train"],
    eval_dataset=tokenized["validation"],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
    preprocess_logits_for_metrics=preprocess_logits_for_metrics,
)
trainer.train()
