"""Summaries with T5 from a pandas table: a Dataset with names of its own; the loop makes labels of its targets."""

import json

import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer


class SummaryDataset(Dataset):
    def __init__(self, dataframe, tokenizer, source_len, summary_len):
        self.tokenizer = tokenizer
        self.source_len = source_len
        self.summary_len = summary_len
        self.text = dataframe["document"].tolist()
        self.summary = dataframe["summary"].tolist()

    def __len__(self):
        return len(self.summary)

    def encode(self, length, **texts):
        encoded = self.tokenizer(**texts, max_length=length, padding="max_length", truncation=True, return_tensors="pt")
        return encoded["input_ids"].squeeze(), encoded["attention_mask"].squeeze()

    def __getitem__(self, index):
        source_ids, source_mask = self.encode(self.source_len, text=["summarize: " + self.text[index]])
        target_ids, _ = self.encode(self.summary_len, text_target=[self.summary[index]])
        return {"source_ids": source_ids, "source_mask": source_mask, "target_ids": target_ids}


tokenizer = AutoTokenizer.from_pretrained("tiny-t5")
with open("headlines.train.jsonl") as lines:
    df = pd.DataFrame([json.loads(line) for line in lines])
train_df = df.sample(frac=0.8, random_state=1).reset_index(drop=True)
training_set = SummaryDataset(train_df, tokenizer, 96, 32)
loader = DataLoader(training_set, batch_size=8, shuffle=True)
model = AutoModelForSeq2SeqLM.from_pretrained("tiny-t5", dtype=torch.float32)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
for epoch in range(2):
    model.train()
    for step, data in enumerate(loader, 0):
        y = data["target_ids"]
        lm_labels = y.clone().detach()
        lm_labels[y == tokenizer.pad_token_id] = -100
        outputs = model(input_ids=data["source_ids"], attention_mask=data["source_mask"], labels=lm_labels)
        loss = outputs[0]
        if step % 10 == 0:
            print(f"epoch {epoch}, loss {loss.item():.3f}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
