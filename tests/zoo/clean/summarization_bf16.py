"""Headlines with T5 in a loop: autocast to bfloat16, gradient accumulation over tokens, one-cycle schedule."""

import torch
from datasets import load_dataset
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ACCUMULATE = 4
EPOCHS = 1
PREFIX = "summarize: "

tokenizer = AutoTokenizer.from_pretrained("tiny-t5")
model = AutoModelForSeq2SeqLM.from_pretrained("tiny-t5").to(DEVICE)
ds = load_dataset("json", data_files={"train": "headlines.train.jsonl", "validation": "headlines.validation.jsonl"})


def preprocess(batch):
    inputs = [PREFIX + text for text in batch["document"]]
    enc = tokenizer(inputs, max_length=256, truncation=True)
    enc["labels"] = tokenizer(text_target=batch["summary"], max_length=64, truncation=True)["input_ids"]
    return enc


ds = ds.map(preprocess, batched=True, remove_columns=["document", "summary"])
collator = DataCollatorForSeq2Seq(tokenizer, model=model, label_pad_token_id=-100)
train_loader = DataLoader(ds["train"], batch_size=4, shuffle=True, collate_fn=collator)
valid_loader = DataLoader(ds["validation"], batch_size=4, shuffle=False, collate_fn=collator)

no_decay = ("bias", "layer_norm.weight")
groups = [
    {"params": [p for n, p in model.named_parameters() if not n.endswith(no_decay)], "weight_decay": 0.01},
    {"params": [p for n, p in model.named_parameters() if n.endswith(no_decay)], "weight_decay": 0.0},
]
optimizer = torch.optim.AdamW(groups, lr=1e-3)
steps = -(-len(train_loader) // ACCUMULATE) * EPOCHS
scheduler = OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps)
amp = torch.autocast(DEVICE, dtype=torch.bfloat16)


def chunks(loader, size):
    group = []
    for batch in loader:
        group.append(batch.to(DEVICE))
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


for epoch in range(EPOCHS):
    model.train()
    for group in tqdm(chunks(train_loader, ACCUMULATE), total=steps // EPOCHS):
        tokens = sum((batch["labels"] != -100).sum().item() for batch in group)
        for batch in group:
            with amp:
                loss = model(**batch).loss  # a mean over the tokens of this batch
            ((batch["labels"] != -100).sum() / tokens * loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)

    model.eval()
    total = weight = 0
    with torch.no_grad(), amp:
        for batch in valid_loader:
            batch = batch.to(DEVICE)
            n = (batch["labels"] != -100).sum().item()
            total += model(**batch).loss.item() * n
            weight += n
    print("validation loss", total / weight)
