"""NER from a table of words, as in many notebooks: padded by hand, a TensorDataset of three tensors, a plain loop."""

import json

import pandas as pd
import torch
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
from transformers import AutoModelForTokenClassification, AutoTokenizer, get_linear_schedule_with_warmup

MAX_LEN = 100
BATCH_SIZE = 32


def load(path):
    rows = []
    for number, line in enumerate(open(path)):
        row = json.loads(line)
        rows += [{"Sentence": number, "Word": word, "Tag": tag} for word, tag in zip(row["words"], row["tags"])]
    return pd.DataFrame(rows)


data = load("sentences.train.jsonl")
groups = data.groupby("Sentence", sort=False)
sentences = [group["Word"].tolist() for _, group in groups]
labels = [group["Tag"].tolist() for _, group in groups]
tag_values = sorted(set(data["Tag"]))
tag2idx = {tag: index for index, tag in enumerate(tag_values)}
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")


def tokenize_and_preserve_labels(sentence, text_labels):
    tokens, kept = ["[CLS]"], [-100]
    for word, label in zip(sentence, text_labels):
        pieces = tokenizer.tokenize(word)
        tokens.extend(pieces)
        inside = label.replace("B-", "I-")
        kept.extend([tag2idx[label]] + [tag2idx[inside]] * (len(pieces) - 1))
    return tokens + ["[SEP]"], kept + [-100]


def pad(row, value):
    return row[:MAX_LEN] + [value] * (MAX_LEN - len(row))


pairs = [tokenize_and_preserve_labels(sentence, tags) for sentence, tags in zip(sentences, labels)]
input_ids = torch.tensor([pad(tokenizer.convert_tokens_to_ids(tokens), 0) for tokens, _ in pairs])
tags = torch.tensor([pad(kept, -100) for _, kept in pairs])
masks = (input_ids != 0).long()

train_data = TensorDataset(input_ids, masks, tags)
train_dataloader = DataLoader(train_data, sampler=RandomSampler(train_data), batch_size=BATCH_SIZE)
model = AutoModelForTokenClassification.from_pretrained(
    "tiny-bert", num_labels=len(tag2idx), id2label=dict(enumerate(tag_values)), label2id=tag2idx, dtype=torch.float32
)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5)
epochs = 3
scheduler = get_linear_schedule_with_warmup(optimizer, 0, len(train_dataloader) * epochs)
for _ in range(epochs):
    model.train()
    total_loss = 0
    for batch in train_dataloader:
        b_input_ids, b_input_mask, b_labels = batch
        model.zero_grad()
        loss = model(b_input_ids, attention_mask=b_input_mask, labels=b_labels).loss
        loss.backward()
        total_loss += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        scheduler.step()
    print("average train loss:", total_loss / len(train_dataloader))
