"""What section 7.6 of the course does with a loop of its own: a causal language model of code whose loss
weights programs by the key words in them."""

import torch
from accelerate import Accelerator
from datasets import load_dataset
from torch.nn import CrossEntropyLoss
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GPT2LMHeadModel,
    get_scheduler,
)

context_length = 128
raw = load_dataset("json", data_files={"train": "programs.train.jsonl", "valid": "programs.validation.jsonl"})
tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")


def tokenize(rows):
    """Cut each program into chunks, and drop the chunk that is not full."""
    encoded = tokenizer(
        rows["code"],
        truncation=True,
        max_length=context_length,
        return_overflowing_tokens=True,
        return_length=True,
    )
    full = [ids for ids, length in zip(encoded["input_ids"], encoded["length"]) if length == context_length]
    return {"input_ids": full}


encoded = raw.map(tokenize, batched=True, remove_columns=raw["train"].column_names)
config = AutoConfig.from_pretrained(
    "tiny-gpt2",
    vocab_size=len(tokenizer),
    n_ctx=context_length,
    bos_token_id=tokenizer.bos_token_id,
    eos_token_id=tokenizer.eos_token_id,
)
model = GPT2LMHeadModel(config)
key_ids = []
for word in ("plt", "pd", "sk", "fit", "predict", " plt", " pd", " sk", " fit", " predict", "testtest"):
    ids = tokenizer([word]).input_ids[0]
    if len(ids) == 1:
        key_ids.append(ids[0])


def weighted_loss(inputs, logits, alpha=1.0):
    """The mean loss of each row, weighted by one more than the number of its key words."""
    gold, scores = inputs[..., 1:].contiguous(), logits[..., :-1, :].contiguous()
    each = CrossEntropyLoss(reduction="none")(scores.view(-1, scores.size(-1)), gold.view(-1))
    per_row = each.view(scores.size(0), scores.size(1)).mean(axis=1)
    weights = torch.stack([(inputs == key).float() for key in key_ids]).sum(axis=[0, 2])
    return (per_row * alpha * (1.0 + weights)).mean()


encoded.set_format("torch")
train_loader = DataLoader(encoded["train"], batch_size=4, shuffle=True)
eval_loader = DataLoader(encoded["valid"], batch_size=4)


def groups(model, without=("bias", "LayerNorm.weight")):
    """Split parameters by weight decay, by the names that the course gives."""
    decayed = [each for name, each in model.named_parameters() if not any(part in name for part in without)]
    others = [each for name, each in model.named_parameters() if any(part in name for part in without)]
    return [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]


def evaluate():
    model.eval()
    losses = []
    for batch in eval_loader:
        with torch.no_grad():
            outputs = model(batch["input_ids"], labels=batch["input_ids"])
        # The course gathers scalars, which fails on one process.
        losses.append(accelerator.gather(outputs.loss.reshape(1)))
    loss = torch.mean(torch.cat(losses))
    return loss.item(), torch.exp(loss).item()


optimizer = AdamW(groups(model), lr=5e-4)
accelerator = Accelerator()
model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)
epochs = 1
accumulation = 8
eval_steps = 2
schedule = get_scheduler(
    "linear", optimizer=optimizer, num_warmup_steps=4, num_training_steps=epochs * len(train_loader)
)
print(evaluate())
model.train()
for epoch in range(epochs):
    for step, batch in enumerate(train_loader, start=1):
        logits = model(batch["input_ids"]).logits
        loss = weighted_loss(batch["input_ids"], logits) / accumulation
        accelerator.backward(loss)
        if step % accumulation == 0:
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if step % (eval_steps * accumulation) == 0:
            print(step, evaluate())
            model.train()
