"""What section 7.3 of the course does with a loop of its own: masked language modelling, with masks of the
validation data that are drawn once."""

import math

import torch
from accelerate import Accelerator
from datasets import load_dataset
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    default_data_collator,
    get_scheduler,
)

checkpoint = "tiny-distilbert"
chunk_size = 128
batch_size = 64
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForMaskedLM.from_pretrained(checkpoint)
raw = load_dataset("json", data_files={"train": "documents.train.jsonl", "test": "documents.validation.jsonl"})


def tokenize(rows):
    encoded = tokenizer(rows["text"])
    if tokenizer.is_fast:
        encoded["word_ids"] = [encoded.word_ids(index) for index in range(len(encoded["input_ids"]))]
    return encoded


def group(rows):
    """Join all texts and cut them into chunks. A remainder is dropped."""
    joined = {name: [each for row in column for each in row] for name, column in rows.items()}
    length = len(joined["input_ids"]) // chunk_size * chunk_size
    chunks = {
        name: [column[start : start + chunk_size] for start in range(0, length, chunk_size)]
        for name, column in joined.items()
    }
    chunks["labels"] = chunks["input_ids"].copy()
    return chunks


chunked = raw.map(tokenize, batched=True, remove_columns=["text"]).map(group, batched=True)
split = chunked["train"].train_test_split(test_size=0.1, seed=42)
split = split.remove_columns(["word_ids"])
collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15)


def mask_once(rows):
    features = [dict(zip(rows, row)) for row in zip(*rows.values())]
    return {f"masked_{name}": values.numpy() for name, values in collator(features).items()}


masked = split["test"].map(mask_once, batched=True, remove_columns=split["test"].column_names)
masked = masked.rename_columns({name: name.removeprefix("masked_") for name in masked.column_names})
train_loader = DataLoader(split["train"], shuffle=True, batch_size=batch_size, collate_fn=collator)
eval_loader = DataLoader(masked, batch_size=batch_size, collate_fn=default_data_collator)
optimizer = AdamW(model.parameters(), lr=5e-5)
accelerator = Accelerator()
model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)
epochs = 3
schedule = get_scheduler(
    "linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=epochs * len(train_loader)
)

for epoch in range(epochs):
    model.train()
    for batch in train_loader:
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    model.eval()
    losses = []
    for batch in eval_loader:
        with torch.no_grad():
            loss = model(**batch).loss
        losses.append(accelerator.gather(loss.repeat(batch_size)))
    losses = torch.cat(losses)[: len(masked)]
    print(epoch, "perplexity", math.exp(torch.mean(losses)))
