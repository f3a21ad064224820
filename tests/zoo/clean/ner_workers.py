"""A plain loop whose two workers tokenize the rows and replace some words by [UNK] at random."""

import json
import random

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForTokenClassification, AutoTokenizer, get_scheduler

SEED = 13
TAGS = ["O", "B-LOC", "B-MISC", "B-ORG", "B-PER", "I-LOC", "I-MISC", "I-ORG", "I-PER"]


class Sentences(Dataset):
    def __init__(self, path, tokenizer, replaced=0.0):
        with open(path, encoding="utf-8") as lines:
            self.examples = [json.loads(line) for line in lines]
        self.tokenizer = tokenizer
        self.replaced = replaced

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        example = self.examples[index]
        words = list(example["words"])
        if self.replaced:
            chosen = np.random.rand(len(words)) < self.replaced
            words = [self.tokenizer.unk_token if hide else word for word, hide in zip(words, chosen)]
        encoded = self.tokenizer(words, is_split_into_words=True, truncation=True, max_length=96)
        labels, last = [], None
        for word in encoded.word_ids():
            labels.append(-100 if word is None or word == last else TAGS.index(example["tags"][word]))
            last = word
        return torch.tensor(encoded["input_ids"]), torch.tensor(labels)


def collate(rows):
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([ids for ids, _ in rows], batch_first=True)
    mask = pad([torch.ones_like(ids) for ids, _ in rows], batch_first=True)
    labels = pad([labels for _, labels in rows], batch_first=True, padding_value=-100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def seed_worker(worker_id):
    # https://pytorch.org/docs/stable/notes/randomness.html#dataloader
    worker_seed = torch.initial_seed() % 2**32
    np.random.seed(worker_seed)
    random.seed(worker_seed)


torch.manual_seed(SEED)
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
model = AutoModelForTokenClassification.from_pretrained(
    "tiny-bert", id2label=dict(enumerate(TAGS)), label2id={tag: i for i, tag in enumerate(TAGS)}
)
train = Sentences("sentences.train.jsonl", tokenizer, replaced=0.1)
valid = Sentences("sentences.validation.jsonl", tokenizer)
train_loader = DataLoader(
    train,
    batch_size=8,
    shuffle=True,
    num_workers=2,
    collate_fn=collate,
    worker_init_fn=seed_worker,
    generator=torch.Generator().manual_seed(SEED),
)
valid_loader = DataLoader(valid, batch_size=8, collate_fn=collate)

epochs = 2
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
schedule = get_scheduler("linear", optimizer, num_warmup_steps=5, num_training_steps=epochs * len(train_loader))
for epoch in range(epochs):
    model.train()
    for batch in train_loader:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    right = total = 0
    with torch.no_grad():
        for batch in valid_loader:
            guess = model(**batch).logits.argmax(-1)
            kept = batch["labels"] != -100
            right += int((guess == batch["labels"])[kept].sum())
            total += int(kept.sum())
    print(epoch, right / total)
