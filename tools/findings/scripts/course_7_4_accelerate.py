"""What section 7.4 of the course does with a loop of its own: translation with a Marian model."""

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

checkpoint = "tiny-marian"
max_length = 128
raw = load_dataset("json", data_files="translations.train.jsonl")["train"]
raw = raw.map(
    lambda row: {"translation": {"en": row["source"], "fr": row["target"]}}, remove_columns=["source", "target"]
)
split = raw.train_test_split(train_size=0.9, seed=20)
split["validation"] = split.pop("test")
tokenizer = AutoTokenizer.from_pretrained(checkpoint, return_tensors="pt")


def preprocess(rows):
    sources = [pair["en"] for pair in rows["translation"]]
    targets = [pair["fr"] for pair in rows["translation"]]
    return tokenizer(sources, text_target=targets, max_length=max_length, truncation=True)


encoded = split.map(preprocess, batched=True, remove_columns=split["train"].column_names)
model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint)
collator = DataCollatorForSeq2Seq(tokenizer, model=model)
metric = evaluate.load("sacrebleu")


encoded.set_format("torch")
train_loader = DataLoader(encoded["train"], shuffle=True, collate_fn=collator, batch_size=8)
eval_loader = DataLoader(encoded["validation"], collate_fn=collator, batch_size=8)
optimizer = AdamW(model.parameters(), lr=2e-5)
accelerator = Accelerator()
model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)
epochs = 3
schedule = get_scheduler(
    "linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=epochs * len(train_loader)
)


def postprocess(generated, gold):
    generated, gold = generated.cpu().numpy(), gold.cpu().numpy()
    guesses = tokenizer.batch_decode(generated, skip_special_tokens=True)
    gold = np.where(gold != -100, gold, tokenizer.pad_token_id)
    references = tokenizer.batch_decode(gold, skip_special_tokens=True)
    return [text.strip() for text in guesses], [[text.strip()] for text in references]


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
                batch["input_ids"], attention_mask=batch["attention_mask"], max_length=max_length
            )
        generated = accelerator.pad_across_processes(generated, dim=1, pad_index=tokenizer.pad_token_id)
        gold = accelerator.pad_across_processes(batch["labels"], dim=1, pad_index=-100)
        guesses, references = postprocess(accelerator.gather(generated), accelerator.gather(gold))
        metric.add_batch(predictions=guesses, references=references)
    print(epoch, "BLEU", metric.compute()["score"])
