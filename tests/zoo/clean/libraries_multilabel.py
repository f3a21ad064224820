"""Which libraries does a program import? Several may be right: binary cross-entropy over all of them."""

import re
from functools import partial

import numpy as np
import torch
from datasets import load_dataset
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

LIBRARIES = ["pandas", "numpy", "sklearn", "matplotlib", "seaborn"]


def prepare(batch, tokenizer):
    bodies = [re.sub(r"^(import|from) .*$", "", code, flags=re.M) for code in batch["code"]]
    encoding = tokenizer(bodies, padding="max_length", truncation=True, max_length=128)
    encoding["labels"] = [
        [float(bool(re.search(rf"^(import|from) {name}", code, flags=re.M))) for name in LIBRARIES]
        for code in batch["code"]
    ]
    return encoding


def multi_label_metrics(predictions, labels, threshold=0.5):
    probabilities = torch.sigmoid(torch.tensor(predictions)).numpy()
    guesses = (probabilities >= threshold).astype(int)
    return {
        "f1": f1_score(labels, guesses, average="micro", zero_division=0),
        "exact": float(np.mean((guesses == labels).all(axis=1))),
    }


def compute_metrics(p):
    predictions = p.predictions[0] if isinstance(p.predictions, tuple) else p.predictions
    return multi_label_metrics(predictions, p.label_ids)


if __name__ == "__main__":
    tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
    model = AutoModelForSequenceClassification.from_pretrained(
        "tiny-bert",
        problem_type="multi_label_classification",
        num_labels=len(LIBRARIES),
        id2label=dict(enumerate(LIBRARIES)),
        label2id={name: i for i, name in enumerate(LIBRARIES)},
    )
    dataset = load_dataset("json", data_files={"train": "programs.train.jsonl", "test": "programs.validation.jsonl"})
    encoded = dataset.map(
        partial(prepare, tokenizer=tokenizer), batched=True, remove_columns=dataset["train"].column_names
    )
    encoded.set_format("torch")
    arguments = TrainingArguments(
        "libraries",
        eval_strategy="epoch",
        save_strategy="epoch",
        learning_rate=2e-4,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        num_train_epochs=1,
        weight_decay=0.01,
        load_best_model_at_end=True,
        metric_for_best_model="f1",
        report_to="none",
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=encoded["train"],
        eval_dataset=encoded["test"],
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    trainer.train()
    trainer.evaluate()
