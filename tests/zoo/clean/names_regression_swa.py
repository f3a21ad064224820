"""How many words are names? A regression with weights averaged from the second epoch on (SWA)."""

import json
from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer


class wandb:
    @staticmethod
    def log(values):
        print({k: round(v, 4) for k, v in values.items()})


class Regressor(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.backbone = AutoModel.from_pretrained(name)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(self.backbone.config.hidden_size, 1))

    def forward(self, **inputs):
        return self.head(self.backbone(**inputs).last_hidden_state[:, 0]).squeeze(-1)


def collate(tokenizer, rows):
    enc = tokenizer([r["words"] for r in rows], is_split_into_words=True, padding=True, return_tensors="pt")
    target = torch.tensor([float(sum(t != "O" for t in r["tags"])) for r in rows])
    return dict(enc), target


def clip(parameters, limit):
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.sqrt(sum(g.pow(2).sum() for g in grads))
    if norm > limit:
        for g in grads:
            g.mul_(limit / norm)
    return norm


torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained("tiny-distilbert")
train, valid = ([json.loads(line) for line in open(f"sentences.{s}.jsonl")] for s in ("train", "validation"))
loader = DataLoader(train, batch_size=16, shuffle=True, collate_fn=partial(collate, tokenizer))
valid_loader = DataLoader(valid, batch_size=16, collate_fn=partial(collate, tokenizer))
model = Regressor("tiny-distilbert")
optimizer = torch.optim.AdamW(
    [{"params": model.backbone.parameters(), "lr": 1e-4}, {"params": model.head.parameters(), "lr": 1e-3}]
)
swa_model, swa_scheduler, swa_start = AveragedModel(model), SWALR(optimizer, swa_lr=5e-4, anneal_epochs=1), 1
mse = nn.MSELoss()
for epoch in range(3):
    model.train()
    for inputs, target in loader:
        optimizer.zero_grad()
        loss = mse(model(**inputs), target)
        loss.backward()
        norm = clip(model.parameters(), 1.0)
        optimizer.step()
        wandb.log({"loss": loss.item(), "norm": norm.item()})
    if epoch >= swa_start:
        swa_model.update_parameters(model)
        swa_scheduler.step()
    model.eval()
    with torch.no_grad():
        errors = [(model(**inputs) - target).abs() for inputs, target in valid_loader]
    wandb.log({"mae": torch.cat(errors).mean().item()})
