"""DPO with a frozen reference: the right headline against another one."""

import copy
import json
import random

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

random.seed(0)
torch.manual_seed(0)
BETA = 0.1
tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
policy = AutoModelForCausalLM.from_pretrained("tiny-gpt2")
reference = copy.deepcopy(policy)
reference.eval().requires_grad_(False)
rows = [json.loads(line) for line in open("headlines.train.jsonl")]
data = []
for i, row in enumerate(rows):
    other = rows[(i + random.randrange(1, len(rows))) % len(rows)]
    data.append((row["document"] + "\n", row["summary"], other["summary"]))


def encode(prompt, answer):
    p = tokenizer(prompt, truncation=True, max_length=120)["input_ids"]
    a = tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id]
    return p + a, [-100] * len(p) + a


def collate(batch):
    seqs = [encode(p, c) for p, c, _ in batch] + [encode(p, r) for p, _, r in batch]
    n = max(len(ids) for ids, _ in seqs)
    ids = torch.full((len(seqs), n), tokenizer.eos_token_id)
    labels = torch.full((len(seqs), n), -100)
    mask = torch.zeros(len(seqs), n, dtype=torch.long)
    for i, (x, y) in enumerate(seqs):
        ids[i, : len(x)] = torch.tensor(x)
        labels[i, : len(y)] = torch.tensor(y)
        mask[i, : len(x)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def logprobs(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    mask = labels != -100
    per_token = torch.gather(logits.log_softmax(-1), 2, labels.clamp(min=0).unsqueeze(2)).squeeze(2)
    return (per_token * mask).sum(-1)


loader = DataLoader(data, batch_size=8, shuffle=True, collate_fn=collate)
optimizer = torch.optim.RMSprop(policy.parameters(), lr=5e-5)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
policy.train()
for epoch in range(2):
    for batch in loader:
        logp = logprobs(policy, batch)
        with torch.no_grad():
            ref = logprobs(reference, batch)
        half = len(logp) // 2
        margin = (logp[:half] - ref[:half]) - (logp[half:] - ref[half:])
        loss = -F.logsigmoid(BETA * margin).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        scheduler.step()
    print(epoch, loss.item(), (margin > 0).float().mean().item())
policy.save_pretrained("dpo")
