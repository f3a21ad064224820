"""What section 7.5 of the course does with a loop of its own: summarization with a T5 model.

The course splits sentences with NLTK's punkt, which is data of its own. Here a full stop ends a sentence.
"""

import re

import evaluate
import numpy as np
import torch
from accelerate import Accelerator
from datasets import load_dataset
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    get_scheduler,
)

checkpoint = "tiny-t5"
max_source, max_target = 256, 30
raw = load_dataset("json", data_files={"train": "headlines.train.jsonl", "validation": "headlines.validation.jsonl"})
raw = raw.rename_columns({"document": "review_body", "summary": "review_title"})
tokenizer = AutoTokenizer.from_pretrained(checkpoint)


def preprocess(rows):
    encoded = tokenizer(rows["review_body"], max_length=max_source, truncation=True)
    targets = tokenizer(rows["review_title"], max_length=max_target, truncation=True)
    encoded["labels"] = targets["input_ids"]
    return encoded


def sentences(text):
    return re.split(r"(?<=[.!?]) ", text.strip())


encoded = raw.map(preprocess, batched=True)
metric = evaluate.load("rouge")
model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint)
collator = DataCollatorForSeq2Seq(tokenizer, model=model)
encoded = encoded.remove_columns(raw["train"].column_names)
encoded.set_format("torch")
train_loader = DataLoader(encoded["train"], shuffle=True, collate_fn=collator, batch_size=8)
eval_loader = DataLoader(encoded["validation"], collate_fn=collator, batch_size=8)
optimizer = AdamW(model.parameters(), lr=2e-5)
accelerator = Accelerator()
model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)
epochs = 10
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
    for batch in eval_loader:
        with torch.no_grad():
            generated = accelerator.unwrap_model(model).generate(
                batch["input_ids"], attention_mask=batch["attention_mask"]
            )
        generated = accelerator.pad_across_processes(generated, dim=1, pad_index=tokenizer.pad_token_id)
        gold = accelerator.pad_across_processes(batch["labels"], dim=1, pad_index=tokenizer.pad_token_id)
        generated, gold = accelerator.gather(generated).cpu().numpy(), accelerator.gather(gold).cpu().numpy()
        gold = np.where(gold != -100, gold, tokenizer.pad_token_id)
        guesses = tokenizer.batch_decode(generated, skip_special_tokens=True)
        references = tokenizer.batch_decode(gold, skip_special_tokens=True)
        metric.add_batch(
            predictions=["\n".join(sentences(text)) for text in guesses],
            references=["\n".join(sentences(text)) for text in references],
        )
    print(epoch, {name: round(value * 100, 4) for name, value in metric.compute().items()})
