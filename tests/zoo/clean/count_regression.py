"""How many capitalised words has a sentence? A regression head on DistilBERT, with a Trainer and model_init."""

import numpy as np
from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

CKPT = "tiny-distilbert"


def model_init():
    return AutoModelForSequenceClassification.from_pretrained(CKPT, num_labels=1, problem_type="regression")


def metrics(p: EvalPrediction):
    guess = p.predictions.squeeze(-1)
    return {
        "mse": float(np.mean((guess - p.label_ids) ** 2)),
        "mae": float(np.abs(guess - p.label_ids).mean()),
    }


tokenizer = AutoTokenizer.from_pretrained(CKPT)
d = load_dataset("json", data_files={"train": "sentences.train.jsonl", "dev": "sentences.validation.jsonl"})
d = d.map(lambda x: {"text": " ".join(x["words"]), "labels": float(sum(w[0].isupper() for w in x["words"]))})
d = d.map(lambda x: tokenizer(x["text"], truncation=True), batched=True, remove_columns=["words", "tags", "text"])

trainer = Trainer(
    model_init=model_init,
    args=TrainingArguments(
        output_dir="regression",
        eval_strategy="steps",
        eval_steps=10,
        max_steps=20,
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to="none",
    ),
    train_dataset=d["train"],
    eval_dataset=d["dev"],
    data_collator=DataCollatorWithPadding(tokenizer),
    compute_metrics=metrics,
)
trainer.train()
