"""R-Drop: two passes with dropout, and the divergence between them. Rows are tuples that the collator tokenizes."""

import json

import torch
import torch.nn.functional as F
from torch.utils.data import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

set_seed(42)


class Pairs(Dataset):
    """Is the second text the summary of the first one?"""

    def __init__(self, path):
        rows = [json.loads(item) for item in open(path)]
        self.items = []
        for i, row in enumerate(rows):
            self.items.append((row["document"], row["summary"], 1))
            self.items.append((row["document"], rows[(i + 5) % len(rows)]["summary"], 0))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


tokenizer = AutoTokenizer.from_pretrained("tiny-bert")


def collate(batch):
    a, b, y = zip(*batch)
    enc = tokenizer(list(a), list(b), truncation="longest_first", max_length=80, padding="longest", return_tensors="pt")
    enc["labels"] = torch.tensor(y)
    return enc


class RDropTrainer(Trainer):
    def __init__(self, alpha=4.0, **kw):
        super().__init__(**kw)
        self.alpha = alpha

    def compute_kl_loss(self, p, q):
        p_loss = F.kl_div(F.log_softmax(p, dim=-1), F.softmax(q, dim=-1), reduction="none")
        q_loss = F.kl_div(F.log_softmax(q, dim=-1), F.softmax(p, dim=-1), reduction="none")
        return (p_loss.sum(-1).mean() + q_loss.sum(-1).mean()) / 2

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, **kwargs)
        out1 = model(**inputs)
        out2 = model(**inputs)
        ce = 0.5 * (out1.loss + out2.loss)
        loss = ce + self.alpha * self.compute_kl_loss(out1.logits, out2.logits)
        return (loss, out1) if return_outputs else loss


model = AutoModelForSequenceClassification.from_pretrained("tiny-bert", num_labels=2)
trainer = RDropTrainer(
    alpha=1.0,
    model=model,
    args=TrainingArguments(
        "rdrop",
        per_device_train_batch_size=8,
        remove_unused_columns=False,
        num_train_epochs=2,
        report_to="none",
        save_strategy="no",
    ),
    train_dataset=Pairs("headlines.train.jsonl"),
    eval_dataset=Pairs("headlines.validation.jsonl"),
    data_collator=collate,
)
trainer.train()
