"""Two heads on one encoder (tags and a count), uncertainty weights, SAM's two passes, two parameter groups."""

import json

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer

torch.manual_seed(0)
tok = AutoTokenizer.from_pretrained("tiny-bert")
rows = [json.loads(line) for line in open("sentences.train.jsonl")]
names = sorted({t for r in rows for t in r["tags"]})


def collate(batch):
    enc = tok([r["words"] for r in batch], is_split_into_words=True, padding=True, return_tensors="pt")
    tags = torch.full(enc["input_ids"].shape, -100)
    for i, r in enumerate(batch):
        for j, w in enumerate(enc.word_ids(i)):
            if w is not None and (j == 0 or enc.word_ids(i)[j - 1] != w):
                tags[i, j] = names.index(r["tags"][w])
    return dict(enc), tags, torch.tensor([[float(len(r["words"]))] for r in batch])


class Multi(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = AutoModel.from_pretrained("tiny-bert", add_pooling_layer=False)
        self.tags, self.count = nn.Linear(32, len(names)), nn.Linear(32, 1)
        self.weights = nn.Parameter(torch.zeros(2))

    def forward(self, **inputs):
        h = self.encoder(**inputs).last_hidden_state
        return self.tags(h), self.count(h[:, 0])


def loss_of(model, inputs, tags, count):
    a, b = model(**inputs)
    losses = torch.stack([F.cross_entropy(a.transpose(1, 2), tags), F.mse_loss(b, count)])
    return (losses * torch.exp(-model.weights) + model.weights).sum()


model = Multi()
heads = [*model.tags.parameters(), *model.count.parameters(), model.weights]
groups = [{"params": model.encoder.parameters(), "lr": 1e-3}, {"params": heads, "lr": 1e-2}]
base = torch.optim.SGD(groups, momentum=0.9)
loader = DataLoader(rows, batch_size=16, shuffle=True, collate_fn=collate)
for epoch in range(2):
    model.train()
    for batch in loader:
        loss_of(model, *batch).backward()
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
            moved = []
            for p in model.parameters():
                if p.grad is not None:
                    e = p.grad * 0.05 / (norm + 1e-12)
                    p.add_(e)
                    moved.append((p, e))
        base.zero_grad()
        loss_of(model, *batch).backward()
        with torch.no_grad():
            for p, e in moved:
                p.sub_(e)
        base.step()
        base.zero_grad()
    print(epoch)
