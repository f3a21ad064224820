"""Token classification in plain PyTorch: a torch Dataset, gradient accumulation, and a loss of its own."""

import json
import random

import torch
from seqeval.metrics import classification_report, f1_score
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForTokenClassification, AutoTokenizer

MODEL = "tiny-bert"
ACCUMULATE = 4
EPOCHS = 2
LR = 5e-4


def read(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


class Sentences(Dataset):
    """Labels on the first subword of each word; the other subwords and special tokens get -100."""

    def __init__(self, rows, tokenizer, label2id):
        self.rows = rows
        self.tokenizer = tokenizer
        self.label2id = label2id

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        encoded = self.tokenizer(row["words"], is_split_into_words=True, truncation=True, max_length=128)
        labels, previous = [], None
        for word in encoded.word_ids():
            if word is None or word == previous:
                labels.append(-100)
            else:
                labels.append(self.label2id[row["tags"][word]])
            previous = word
        return {
            "input_ids": torch.tensor(encoded["input_ids"]),
            "attention_mask": torch.tensor(encoded["attention_mask"]),
            "labels": torch.tensor(labels),
        }


def collate(rows):
    return {
        "input_ids": pad_sequence([row["input_ids"] for row in rows], batch_first=True, padding_value=0),
        "attention_mask": pad_sequence([row["attention_mask"] for row in rows], batch_first=True, padding_value=0),
        "labels": pad_sequence([row["labels"] for row in rows], batch_first=True, padding_value=-100),
    }


def evaluate(model, loader, names, device):
    model.eval()
    gold, found = [], []
    with torch.no_grad():
        for batch in loader:
            labels = batch.pop("labels")
            logits = model(**{key: value.to(device) for key, value in batch.items()}).logits
            for guesses, row in zip(logits.argmax(-1).cpu(), labels):
                kept = row != -100
                gold.append([names[i] for i in row[kept]])
                found.append([names[i] for i in guesses[kept]])
    print(classification_report(gold, found, zero_division=0))
    return f1_score(gold, found)


def main():
    torch.manual_seed(13)
    random.seed(13)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_rows, dev_rows = read("sentences.train.jsonl"), read("sentences.validation.jsonl")
    names = ["O"] + sorted({tag for row in train_rows for tag in row["tags"] if tag != "O"})
    label2id = {name: i for i, name in enumerate(names)}
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    train_data = Sentences(train_rows, tokenizer, label2id)
    dev_data = Sentences(dev_rows, tokenizer, label2id)
    train_loader = DataLoader(train_data, batch_size=6, shuffle=True, collate_fn=collate)
    dev_loader = DataLoader(dev_data, batch_size=16, collate_fn=collate)
    model = AutoModelForTokenClassification.from_pretrained(
        MODEL, num_labels=len(names), id2label=dict(enumerate(names)), label2id=label2id, dtype=torch.float32
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    updates = -(-len(train_loader) // ACCUMULATE) * EPOCHS
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=updates)
    loss_fn = nn.CrossEntropyLoss(ignore_index=-100, reduction="sum")

    for epoch in range(EPOCHS):
        model.train()
        group = []
        for i, batch in enumerate(train_loader):
            group.append({key: value.to(device) for key, value in batch.items()})
            if len(group) < ACCUMULATE and i + 1 < len(train_loader):
                continue
            count = sum((each["labels"] != -100).sum() for each in group)
            for each in group:
                labels = each.pop("labels")
                logits = model(**each).logits
                loss = loss_fn(logits.view(-1, len(names)), labels.view(-1)) / count
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            group = []
        print(f"epoch {epoch}: f1 {evaluate(model, dev_loader, names, device):.3f}")
    torch.save(model.state_dict(), "ner.pt")


if __name__ == "__main__":
    main()
