"""Is the French a translation of the English? One TensorDataset; batches are tuples, as in old tutorials."""

import json
import random

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset
from transformers import BertForSequenceClassification, BertTokenizerFast

seed_val = 42
random.seed(seed_val)
np.random.seed(seed_val)
torch.manual_seed(seed_val)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

tokenizer = BertTokenizerFast.from_pretrained("tiny-bert", do_lower_case=False)


def build(path):
    with open(path, encoding="utf-8") as f:
        pairs = [json.loads(line) for line in f]
    first, second, labels = [], [], []
    for k, pair in enumerate(pairs):
        fits = random.random() < 0.5
        first.append(pair["source"])
        second.append(
            pair["target"] if fits else pairs[(k + 1 + random.randrange(len(pairs) - 1)) % len(pairs)]["target"]
        )
        labels.append(int(fits))
    encoded = tokenizer(first, second, max_length=96, truncation=True, padding="max_length", return_tensors="pt")
    return TensorDataset(
        encoded["input_ids"], encoded["token_type_ids"], encoded["attention_mask"], torch.tensor(labels)
    )


train_dataset = build("translations.train.jsonl")
val_dataset = build("translations.validation.jsonl")
batch_size = 16
train_dataloader = DataLoader(train_dataset, sampler=RandomSampler(train_dataset), batch_size=batch_size)
validation_dataloader = DataLoader(val_dataset, sampler=SequentialSampler(val_dataset), batch_size=batch_size)

model = BertForSequenceClassification.from_pretrained("tiny-bert", num_labels=2, output_attentions=False)
model.to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, eps=1e-8)
epochs = 2


def flat_accuracy(preds, labels):
    return np.sum(np.argmax(preds, axis=1).flatten() == labels.flatten()) / len(labels)


for epoch_i in range(epochs):
    print(f"======== Epoch {epoch_i + 1} / {epochs} ========")
    total_train_loss = 0
    model.train()
    for step, batch in enumerate(train_dataloader):
        b_input_ids, b_segments, b_input_mask, b_labels = (t.to(device) for t in batch)
        model.zero_grad()
        result = model(b_input_ids, token_type_ids=b_segments, attention_mask=b_input_mask, labels=b_labels)
        total_train_loss += result.loss.item()
        result.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    model.eval()
    hits = 0
    for batch in validation_dataloader:
        b_input_ids, b_segments, b_input_mask, b_labels = (t.to(device) for t in batch)
        with torch.no_grad():
            logits = model(b_input_ids, token_type_ids=b_segments, attention_mask=b_input_mask).logits
        hits += flat_accuracy(logits.cpu().numpy(), b_labels.cpu().numpy()) * len(b_labels)
    print(f"loss {total_train_loss / len(train_dataloader):.3f}, accuracy {hits / len(val_dataset):.3f}")
