"""Marian from English to French in a loop of its own, with batches of like lengths."""

import json
import random

import torch
from torch.utils.data import DataLoader, Sampler
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer


class LengthBucketSampler(Sampler):
    """Yields batches of indices. Rows of like length share a batch; the batches come in random order."""

    def __init__(self, lengths, batch_size, seed=0, pool=4):
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.pool = pool
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return (len(self.lengths) + self.batch_size - 1) // self.batch_size

    def __iter__(self):
        rng = random.Random(self.seed + self.epoch)
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        # Sort within pools of several batches, so that epochs differ.
        size = self.batch_size * self.pool
        pools = [sorted(order[i : i + size], key=lambda j: self.lengths[j]) for i in range(0, len(order), size)]
        batches = [pool[i : i + self.batch_size] for pool in pools for i in range(0, len(pool), self.batch_size)]
        rng.shuffle(batches)
        return iter(batches)


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def main():
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained("tiny-marian")
    model = AutoModelForSeq2SeqLM.from_pretrained("tiny-marian")
    train = read("translations.train.jsonl")
    eos = tokenizer.eos_token_id

    def encode(text):
        ids = tokenizer(text, add_special_tokens=False, truncation=True, max_length=95)["input_ids"]
        return ids + [eos]

    rows = [(encode(row["source"]), encode(row["target"])) for row in train]

    def collate(batch):
        source = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(s) for s, _ in batch], batch_first=True, padding_value=tokenizer.pad_token_id
        )
        labels = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(t) for _, t in batch], batch_first=True, padding_value=-100
        )
        lengths = torch.tensor([len(s) for s, _ in batch])
        mask = (torch.arange(source.shape[1])[None, :] < lengths[:, None]).long()
        return {"input_ids": source, "attention_mask": mask, "labels": labels}

    sampler = LengthBucketSampler([len(s) for s, _ in rows], batch_size=16)
    loader = DataLoader(rows, batch_sampler=sampler, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        model.train()
        total = 0.0
        for batch in loader:
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item()
        print(epoch, total / len(loader))


main()
