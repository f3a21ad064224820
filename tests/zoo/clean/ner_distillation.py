"""A small student learns tags from a frozen teacher and from the labels. The teacher is called last."""

import json

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification

T, ALPHA = 2.0, 0.5
torch.manual_seed(11)
tok = AutoTokenizer.from_pretrained("tiny-bert")
tags = ["O"] + [f"{p}-{t}" for t in ("PER", "ORG", "LOC", "MISC") for p in "BI"]
rows = {s: [json.loads(line) for line in open(f"sentences.{s}.jsonl")] for s in ("train", "validation")}


def encode(row):
    enc = tok(row["words"], is_split_into_words=True, truncation=True, max_length=100)
    labels, seen = [], set()
    for w in enc.word_ids():
        if w is None or w in seen:
            labels.append(-100)
        else:
            seen.add(w)
            labels.append(tags.index(row["tags"][w]))
    return {"input_ids": enc["input_ids"], "attention_mask": enc["attention_mask"], "labels": labels}


collator = DataCollatorForTokenClassification(tok)
train_dl = DataLoader([encode(r) for r in rows["train"]], batch_size=16, shuffle=True, collate_fn=collator)
valid_dl = DataLoader([encode(r) for r in rows["validation"]], batch_size=16, collate_fn=collator)
teacher = AutoModelForTokenClassification.from_pretrained("tiny-bert", num_labels=len(tags))
config = AutoConfig.from_pretrained("tiny-bert", num_labels=len(tags), num_hidden_layers=1)
student = AutoModelForTokenClassification.from_config(config)
student.bert.embeddings.load_state_dict(teacher.bert.embeddings.state_dict())
teacher.eval()
for p in teacher.parameters():
    p.requires_grad_(False)
opt = torch.optim.AdamW(student.parameters(), lr=1e-3)


def kd_loss(student_logits, teacher_logits, mask):
    s = F.log_softmax(student_logits / T, dim=-1)
    t = F.softmax(teacher_logits / T, dim=-1)
    kl = F.kl_div(s, t, reduction="none").sum(-1)
    return (kl * mask).sum() / mask.sum() * T * T


for epoch in range(2):
    student.train()
    for batch in train_dl:
        labels = batch.pop("labels")
        out = student(**batch).logits
        with torch.no_grad():
            target = teacher(**batch).logits
        hard = F.cross_entropy(out.view(-1, len(tags)), labels.view(-1), ignore_index=-100)
        soft = kd_loss(out, target, batch["attention_mask"].float())
        loss = ALPHA * hard + (1 - ALPHA) * soft
        opt.zero_grad()
        loss.backward()
        opt.step()
    student.eval()
    right = total = 0
    with torch.inference_mode():
        for batch in valid_dl:
            labels = batch.pop("labels")
            guess = student(**batch).logits.argmax(-1)
            keep = labels != -100
            right += (guess[keep] == labels[keep]).sum().item()
            total += keep.sum().item()
    print(epoch, right / total)
student.save_pretrained("student")
