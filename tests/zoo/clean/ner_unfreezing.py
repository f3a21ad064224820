"""NER in two phases: the head alone, then everything with an optimizer and a schedule of its own."""

import json

import torch
import torch.nn as nn
from torch.utils.data import DataLoader
from transformers import AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification

torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
labels = ["O"] + [f"{b}-{t}" for t in ("PER", "ORG", "LOC", "MISC") for b in "BI"]


def encode(row):
    enc = tokenizer(row["words"], is_split_into_words=True)
    y, last = [], None
    for w in enc.word_ids():
        y.append(-100 if w is None or w == last else labels.index(row["tags"][w]))
        last = w
    return {**enc, "labels": y}


data = {s: [encode(json.loads(line)) for line in open(f"sentences.{s}.jsonl")] for s in ("train", "validation")}
collate = DataCollatorForTokenClassification(tokenizer)
train_dl = DataLoader(data["train"], batch_size=16, shuffle=True, collate_fn=collate)
valid_dl = DataLoader(data["validation"], batch_size=16, collate_fn=collate)
model = AutoModelForTokenClassification.from_pretrained(
    "tiny-bert", num_labels=len(labels), id2label=dict(enumerate(labels))
)
criterion = nn.CrossEntropyLoss(ignore_index=-100, label_smoothing=0.05)


def run_epoch(optimizer, scheduler=None):
    model.train()
    for batch in train_dl:
        y = batch.pop("labels")
        logits = model(**batch).logits
        loss = criterion(logits.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


@torch.inference_mode()
def accuracy():
    model.eval()
    right = total = 0
    for batch in valid_dl:
        y = batch.pop("labels")
        pred = model(**batch).logits.argmax(-1)
        right += ((pred == y) & (y != -100)).sum().item()
        total += (y != -100).sum().item()
    return right / total


for p in model.bert.parameters():
    p.requires_grad = False
head_optimizer = torch.optim.AdamW(model.classifier.parameters(), lr=1e-3)
run_epoch(head_optimizer)
print("frozen", accuracy())
for p in model.bert.parameters():
    p.requires_grad = True
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
epochs = 2
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-4, epochs=epochs, steps_per_epoch=len(train_dl))
for epoch in range(epochs):
    run_epoch(optimizer, scheduler)
    print(epoch, accuracy())
