"""GPT-2 on articles, always padded on the left, with position ids that begin at the first token."""

from typing import Any

import torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerBase, get_scheduler


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


class Collator:
    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.tokenizer.pad(rows, padding=True, return_tensors="pt")
        mask = batch["attention_mask"]
        labels = batch["input_ids"].clone()
        labels[mask == 0] = -100  # by the mask, not by the id: the end of text is the padding, too
        position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
        return {
            "input_ids": batch["input_ids"],
            "attention_mask": mask,
            "position_ids": position_ids,
            "labels": labels,
        }


def train_loop(epochs: int = 1, batch_size: int = 8) -> None:
    tokenizer = load_tokenizer("tiny-gpt2")
    files = {"train": "documents.train.jsonl", "validation": "documents.validation.jsonl"}
    dataset = load_dataset("json", data_files=files)

    def tokenize(example: dict[str, Any]) -> dict[str, Any]:
        ids = tokenizer(example["text"], truncation=True, max_length=100)["input_ids"]
        ids.append(tokenizer.eos_token_id)
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}

    dataset = dataset.map(tokenize, remove_columns=["text"])
    collator = Collator(tokenizer)
    train_dl = DataLoader(dataset["train"], batch_size=batch_size, shuffle=True, collate_fn=collator)
    eval_dl = DataLoader(dataset["validation"], batch_size=batch_size, collate_fn=collator)

    model = GPT2LMHeadModel.from_pretrained("tiny-gpt2")
    optim = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.0)
    sched = get_scheduler("cosine", optim, num_warmup_steps=3, num_training_steps=epochs * len(train_dl))
    for _ in range(epochs):
        model.train()
        for batch in train_dl:
            optim.zero_grad()
            model(**batch).loss.backward()
            optim.step()
            sched.step()
        model.eval()
        total, count = 0.0, 0
        for batch in eval_dl:
            with torch.inference_mode():
                logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits[:, :-1]
            target = batch["labels"][:, 1:]
            loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="sum")
            total += loss.item()
            count += int((target != -100).sum())
        print("perplexity", torch.tensor(total / count).exp().item())


if __name__ == "__main__":
    train_loop()
