"""A plain PyTorch loop: sentences with entities are drawn more often, with replacement."""

import json

import torch
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from transformers import BertForTokenClassification, PreTrainedTokenizerFast, get_linear_schedule_with_warmup

TAGS = ("O", "B-LOC", "B-MISC", "B-ORG", "B-PER", "I-LOC", "I-MISC", "I-ORG", "I-PER")
EPOCHS = 2
BATCH = 16


class Sentences(Dataset):
    def __init__(self, path, tokenizer, max_length=80):
        self.items = []
        with open(path, encoding="utf-8") as f:
            for line in f:
                row = json.loads(line)
                self.items.append((row["words"], row["tags"]))
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        words, tags = self.items[i]
        enc = self.tokenizer(words, is_split_into_words=True, truncation=True, max_length=self.max_length)
        seen = set()
        labels = []
        for w in enc.word_ids():
            labels.append(-100 if w is None or w in seen else TAGS.index(tags[w]))
            seen.add(w)
        return {"input_ids": enc["input_ids"], "labels": labels}


def collate(items):
    width = max(len(x["input_ids"]) for x in items)
    ids = torch.zeros(len(items), width, dtype=torch.long)
    mask = torch.zeros(len(items), width, dtype=torch.long)
    labels = torch.full((len(items), width), -100)
    for r, x in enumerate(items):
        n = len(x["input_ids"])
        ids[r, :n] = torch.tensor(x["input_ids"])
        mask[r, :n] = 1
        labels[r, :n] = torch.tensor(x["labels"])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


torch.manual_seed(42)
tokenizer = PreTrainedTokenizerFast.from_pretrained("tiny-bert")
train = Sentences("sentences.train.jsonl", tokenizer)
valid = Sentences("sentences.validation.jsonl", tokenizer)
weights = [1.0 + sum(tag != "O" for tag in tags) for _, tags in train.items]
sampler = WeightedRandomSampler(weights, num_samples=len(train), replacement=True)
train_loader = DataLoader(train, batch_size=BATCH, sampler=sampler, collate_fn=collate)
valid_loader = DataLoader(valid, batch_size=BATCH, collate_fn=collate)

model = BertForTokenClassification.from_pretrained(
    "tiny-bert", num_labels=len(TAGS), id2label=dict(enumerate(TAGS)), label2id={t: i for i, t in enumerate(TAGS)}
)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
scheduler = get_linear_schedule_with_warmup(optimizer, 5, EPOCHS * len(train_loader))

for epoch in range(EPOCHS):
    model.train()
    for batch in train_loader:
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    model.eval()
    right = total = 0
    with torch.no_grad():
        for batch in valid_loader:
            labels = batch.pop("labels")
            guess = model(**batch).logits.argmax(-1)
            keep = labels != -100
            right += (guess[keep] == labels[keep]).sum().item()
            total += keep.sum().item()
    print(f"epoch {epoch}: accuracy {right / total:.3f}")
