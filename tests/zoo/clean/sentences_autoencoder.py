"""A text autoencoder: an LSTM reads a sentence into one vector, another writes it again from the vector."""

import json

import torch
import torch.nn as nn
from torch.utils.data import DataLoader

torch.manual_seed(0)
rows = [json.loads(line)["words"] for line in open("sentences.train.jsonl")]
vocab = {"<pad>": 0}
for r in rows:
    for w in r:
        vocab.setdefault(w, len(vocab))


def collate(batch):
    n = max(map(len, batch))
    return torch.tensor([[vocab[w] for w in r] + [0] * (n - len(r)) for r in batch])


class AE(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(len(vocab), 24, padding_idx=0)
        self.enc, self.dec = nn.LSTM(24, 24, batch_first=True), nn.LSTM(24, 24, batch_first=True)
        self.out = nn.Linear(24, len(vocab))

    def forward(self, x):
        _, (h, _) = self.enc(self.emb(x))
        y, _ = self.dec(h[-1].unsqueeze(1).expand(-1, x.size(1), -1))
        return self.out(y)


model = AE()
opt = torch.optim.Adam(model.parameters(), lr=1e-2)
loader = DataLoader(rows, batch_size=16, shuffle=True, collate_fn=collate)
for epoch in range(3):
    for x in loader:
        logits = model(x)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), x.flatten(), ignore_index=0)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(epoch, loss.item())
