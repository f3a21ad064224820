"""Which kinds of entities does a sentence hold? Several labels a row, scored by thresholds, as in many notebooks."""

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, DatasetDict
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, EvalPrediction, Trainer, TrainingArguments

LABELS = ["PER", "ORG", "LOC"]


def load(path):
    df = pd.read_json(path, lines=True)
    df["text"] = df["words"].apply(" ".join)
    for item in LABELS:
        df[item] = df["tags"].apply(lambda tags: any(t.endswith(item) for t in tags))
    return Dataset.from_pandas(df[["text"] + LABELS], preserve_index=False)


dataset = DatasetDict(train=load("sentences.train.jsonl"), validation=load("sentences.validation.jsonl"))
id2label = {i: item for i, item in enumerate(LABELS)}
label2id = {item: i for i, item in enumerate(LABELS)}
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")


def preprocess_data(examples):
    encoding = tokenizer(examples["text"], padding="max_length", truncation=True, max_length=64)
    labels_batch = {k: examples[k] for k in examples.keys() if k in LABELS}
    labels_matrix = np.zeros((len(examples["text"]), len(LABELS)))
    for idx, label in enumerate(LABELS):
        labels_matrix[:, idx] = labels_batch[label]
    encoding["labels"] = labels_matrix.tolist()
    return encoding


encoded_dataset = dataset.map(preprocess_data, batched=True, remove_columns=dataset["train"].column_names)
encoded_dataset.set_format("torch")

model = AutoModelForSequenceClassification.from_pretrained(
    "tiny-bert", problem_type="multi_label_classification", num_labels=len(LABELS), id2label=id2label, label2id=label2id
)


def multi_label_metrics(predictions, labels, threshold=0.5):
    probs = torch.sigmoid(torch.Tensor(predictions))
    y_pred = np.zeros(probs.shape)
    y_pred[np.where(probs >= threshold)] = 1
    return {
        "f1": f1_score(y_true=labels, y_pred=y_pred, average="micro", zero_division=0),
        "accuracy": float((labels == y_pred).all(axis=1).mean()),
    }


def compute_metrics(p: EvalPrediction):
    preds = p.predictions[0] if isinstance(p.predictions, tuple) else p.predictions
    return multi_label_metrics(predictions=preds, labels=p.label_ids)


args = TrainingArguments(
    "bert-finetuned",
    eval_strategy="epoch",
    save_strategy="epoch",
    learning_rate=2e-5,
    per_device_train_batch_size=8,
    per_device_eval_batch_size=8,
    num_train_epochs=5,
    weight_decay=0.01,
    load_best_model_at_end=True,
    metric_for_best_model="f1",
    report_to="none",
)
trainer = Trainer(
    model,
    args,
    train_dataset=encoded_dataset["train"],
    eval_dataset=encoded_dataset["validation"],
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
)
trainer.train()
