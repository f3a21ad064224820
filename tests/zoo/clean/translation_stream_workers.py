"""Marian over a stream of sentence pairs: each of two workers reads its part of the file, as in torch's manual."""

import json
import math

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, MarianMTModel


class Pairs(IterableDataset):
    def __init__(self, path, tokenizer, max_length=64):
        super().__init__()
        with open(path, encoding="utf-8") as lines:
            self.rows = [json.loads(line) for line in lines]
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.start, self.end = 0, len(self.rows)

    def part(self):
        info = get_worker_info()
        if info is None:
            return self.start, self.end
        size = math.ceil((self.end - self.start) / info.num_workers)
        first = self.start + info.id * size
        return first, min(first + size, self.end)

    def __iter__(self):
        first, last = self.part()
        for row in self.rows[first:last]:
            yield dict(
                self.tokenizer(row["source"], text_target=row["target"], truncation=True, max_length=self.max_length)
            )


torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained("tiny-marian")
model = MarianMTModel.from_pretrained("tiny-marian")
loader = DataLoader(
    Pairs("translations.train.jsonl", tokenizer),
    batch_size=8,
    num_workers=2,
    collate_fn=DataCollatorForSeq2Seq(tokenizer, model=model),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
for epoch in range(2):
    model.train()
    for batch in loader:
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
