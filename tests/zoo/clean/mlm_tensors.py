"""Masked LM on tensors that are tokenized and masked once, all at the start: the masks stay the same in every epoch."""

import json

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
model = AutoModelForMaskedLM.from_pretrained("tiny-bert", dtype=torch.float32)
with open("documents.train.jsonl") as lines:
    text = [json.loads(line)["text"] for line in lines]

torch.manual_seed(0)
inputs = tokenizer(text, return_tensors="pt", max_length=64, truncation=True, padding="max_length")
inputs["labels"] = inputs.input_ids.detach().clone()
rand = torch.rand(inputs.input_ids.shape)
special = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
mask_arr = (rand < 0.15) & ~torch.isin(inputs.input_ids, torch.tensor(special))
inputs.labels[~mask_arr] = -100
inputs.input_ids[mask_arr] = tokenizer.mask_token_id


class TextDataset(Dataset):
    def __init__(self, encodings):
        self.encodings = encodings

    def __getitem__(self, idx):
        return {key: val[idx].clone() for key, val in self.encodings.items()}

    def __len__(self):
        return len(self.encodings.input_ids)


loader = DataLoader(TextDataset(inputs), batch_size=16, shuffle=True)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model.to(device)
model.train()
optim = torch.optim.AdamW(model.parameters(), lr=5e-5)
for epoch in range(2):
    for batch in loader:
        optim.zero_grad()
        input_ids = batch["input_ids"].to(device)
        attention_mask = batch["attention_mask"].to(device)
        labels = batch["labels"].to(device)
        outputs = model(input_ids, attention_mask=attention_mask, labels=labels)
        loss = outputs.loss
        loss.backward()
        optim.step()
    print("epoch", epoch, "loss", loss.item())
