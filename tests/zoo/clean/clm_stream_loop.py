"""A loop over a stream of token blocks: all workers shuffle alike, and each takes its share of the texts."""

import itertools
import json
import random

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import AutoModelForCausalLM, AutoTokenizer

LENGTH = 64


class Blocks(IterableDataset):
    def __init__(self, path, tokenizer, seed=0):
        self.path, self.tokenizer, self.seed, self.epoch = path, tokenizer, seed, 0

    def texts(self):
        with open(self.path, encoding="utf-8") as lines:
            texts = [json.loads(line)["code"] for line in lines]
        random.Random(self.seed + self.epoch).shuffle(texts)
        info = get_worker_info()
        if info is not None:
            texts = itertools.islice(texts, info.id, None, info.num_workers)
        return texts

    def __iter__(self):
        left = []
        for text in self.texts():
            left += self.tokenizer(text)["input_ids"] + [self.tokenizer.eos_token_id]
            while len(left) >= LENGTH:
                yield torch.tensor(left[:LENGTH])
                left = left[LENGTH:]


torch.manual_seed(1)
tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
model = AutoModelForCausalLM.from_pretrained("tiny-gpt2")
data = Blocks("programs.train.jsonl", tokenizer)
loader = DataLoader(data, batch_size=8, num_workers=2)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
for epoch in range(3):
    data.epoch = epoch
    model.train()
    for ids in loader:
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    print(epoch, loss.item())
