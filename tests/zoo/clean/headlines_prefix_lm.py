"""A prefix language model: the document is read both ways, the headline one way; plain SGD, grads set to None."""

import json

import torch
import torch.nn as nn
import torch.nn.functional as F
from transformers import AutoTokenizer

torch.manual_seed(0)
tok = AutoTokenizer.from_pretrained("tiny-gpt2")
rows = [json.loads(line) for line in open("headlines.train.jsonl")]
END = tok.eos_token_id


class PrefixLM(nn.Module):
    def __init__(self, n=32):
        super().__init__()
        self.tok, self.pos = nn.Embedding(len(tok) + 1, n, padding_idx=len(tok)), nn.Embedding(200, n)
        layer = nn.TransformerEncoderLayer(n, 2, 64, batch_first=True)
        self.body, self.out = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(n, len(tok))

    def forward(self, tokens, prefix):
        B, T = tokens.shape
        at = torch.arange(T)
        hidden = (at[None, :] > at[:, None])[None] & (at[None, None, :] >= prefix[:, None, None])
        hidden = hidden | (tokens == len(tok))[:, None, :]
        return self.out(self.body(self.tok(tokens) + self.pos(at), mask=hidden.repeat_interleave(2, 0)))


def batches(size=8):
    order = torch.randperm(len(rows)).tolist()
    for i in range(0, len(order), size):
        pairs = []
        for j in order[i : i + size]:
            a = tok(rows[j]["document"], truncation=True, max_length=100)["input_ids"]
            b = tok(rows[j]["summary"])["input_ids"] + [END]
            pairs.append((a, b))
        n = max(len(a) + len(b) for a, b in pairs)
        x = torch.full((len(pairs), n), len(tok))
        y = torch.full((len(pairs), n), -100)
        for k, (a, b) in enumerate(pairs):
            x[k, : len(a) + len(b)] = torch.tensor(a + b)
            y[k, len(a) - 1 : len(a) + len(b) - 1] = torch.tensor(b)
        yield x, torch.tensor([len(a) for a, _ in pairs]), y


model = PrefixLM()
opt = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(2):
    model.train()
    for x, prefix, y in batches():
        loss = F.cross_entropy(model(x, prefix).transpose(1, 2), y)
        loss.backward()
        opt.step()
        opt.zero_grad()
    print(epoch, loss.item())
