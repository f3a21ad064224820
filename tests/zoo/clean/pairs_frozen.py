"""Does a headline fit its article? BERT with a frozen encoder: only the pooler and the classifier learn."""

import argparse
import random

import numpy as np
from datasets import Dataset, load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments


def make_pairs(rows, seed):
    """Each article with its own headline (1) and with that of another article (0)."""
    rng = random.Random(seed)
    articles, headlines, labels = [], [], []
    for i, row in enumerate(rows):
        articles += [row["document"], row["document"]]
        other = rng.choice([j for j in range(len(rows)) if j != i])
        headlines += [row["summary"], rows[other]["summary"]]
        labels += [1, 0]
    return Dataset.from_dict({"article": articles, "headline": headlines, "label": labels})


def accuracy(p):
    return {"accuracy": float((np.argmax(p.predictions, axis=1) == p.label_ids).mean())}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", default="tiny-bert")
    ap.add_argument("--max-length", type=int, default=96)
    ap.add_argument("--epochs", type=float, default=1)
    ap.add_argument("--seed", type=int, default=0)
    args = ap.parse_args()

    tok = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2)
    for p in model.bert.embeddings.parameters():
        p.requires_grad = False
    for p in model.bert.encoder.parameters():
        p.requires_grad = False
    n = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{n} trainable parameters")

    def tokenize(batch):
        return tok(
            batch["headline"],
            batch["article"],
            truncation="only_second",
            max_length=args.max_length,
            padding="max_length",
        )

    splits = {}
    for name in ("train", "validation"):
        rows = load_dataset("json", data_files={name: f"headlines.{name}.jsonl"}, split=name)
        splits[name] = make_pairs(list(rows), args.seed).map(tokenize, batched=True)

    targs = TrainingArguments(
        output_dir="pairs",
        num_train_epochs=args.epochs,
        learning_rate=1e-3,
        per_device_train_batch_size=16,
        eval_strategy="epoch",
        save_strategy="no",
        seed=args.seed,
        report_to="none",
    )
    trainer = Trainer(
        model, targs, train_dataset=splits["train"], eval_dataset=splits["validation"], compute_metrics=accuracy
    )
    trainer.train()


if __name__ == "__main__":
    main()
