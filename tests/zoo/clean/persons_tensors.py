"""Does a sentence name a person? An Engine class of its own over a TensorDataset, with a linear warm-up."""

import argparse
import json
import logging
import os

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger(__name__)


def load(path):
    texts, labels = [], []
    with open(path) as f:
        for line in f:
            row = json.loads(line)
            texts.append(" ".join(row["words"]))
            labels.append(int(any(t.endswith("PER") for t in row["tags"])))
    return texts, labels


def make_dataset(path, tokenizer, max_len):
    texts, labels = load(path)
    enc = tokenizer(texts, padding="max_length", truncation=True, max_length=max_len, return_tensors="pt")
    return TensorDataset(enc["input_ids"], enc["attention_mask"], torch.tensor(labels))


class Engine:
    def __init__(self, model, optimizer, scheduler, device, args):
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.device, self.args = device, args
        self.best = 0.0
        self.patience = 0

    def train_epoch(self, loader):
        self.model.train()
        losses = []
        bar = tqdm(loader, desc="train", leave=False)
        for step, batch in enumerate(bar):
            ids, mask, labels = (t.to(self.device) for t in batch)
            outputs = self.model(input_ids=ids, attention_mask=mask, labels=labels)
            loss = outputs[0]
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.args.max_grad_norm)
            self.optimizer.step()
            self.scheduler.step()
            self.model.zero_grad()
            losses.append(loss.item())
            bar.set_postfix(loss=f"{np.mean(losses):.3f}")
        return np.mean(losses)

    def eval_epoch(self, loader):
        self.model.eval()
        preds, golds = [], []
        with torch.no_grad():
            for batch in loader:
                ids, mask, labels = (t.to(self.device) for t in batch)
                logits = self.model(ids, attention_mask=mask)[0]
                preds.append(logits.argmax(1).cpu().numpy())
                golds.append(labels.cpu().numpy())
        return (np.concatenate(preds) == np.concatenate(golds)).mean()

    def fit(self, train_loader, dev_loader):
        for epoch in range(self.args.epochs):
            loss = self.train_epoch(train_loader)
            acc = self.eval_epoch(dev_loader)
            logger.info("epoch %d loss %.3f acc %.3f", epoch, loss, acc)
            if acc > self.best:
                self.best, self.patience = acc, 0
                torch.save(self.model.state_dict(), os.path.join(self.args.out, "best.bin"))
            else:
                self.patience += 1
                if self.patience >= 3:
                    break


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tiny-bert")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--max_grad_norm", type=float, default=1.0)
    parser.add_argument("--out", default="out")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(42)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2)
    train_data = make_dataset("sentences.train.jsonl", tokenizer, 64)
    dev_data = make_dataset("sentences.validation.jsonl", tokenizer, 64)
    train_loader = DataLoader(train_data, sampler=RandomSampler(train_data), batch_size=args.batch_size)
    dev_loader = DataLoader(dev_data, sampler=SequentialSampler(dev_data), batch_size=args.batch_size)
    no_decay = ["bias", "LayerNorm.weight"]
    groups = [
        {
            "params": [p for n, p in model.named_parameters() if not any(nd in n for nd in no_decay)],
            "weight_decay": 0.01,
        },
        {"params": [p for n, p in model.named_parameters() if any(nd in n for nd in no_decay)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr)
    total = len(train_loader) * args.epochs
    scheduler = get_linear_schedule_with_warmup(optimizer, int(0.1 * total), total)
    Engine(model, optimizer, scheduler, torch.device("cpu"), args).fit(train_loader, dev_loader)


if __name__ == "__main__":
    main()
