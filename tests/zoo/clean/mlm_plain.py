"""A masked language model in plain PyTorch: tuples of tensors, masked anew in every epoch by a function of its own."""

import argparse
import json
import math
import sys

import torch
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModelForMaskedLM, AutoTokenizer


def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tiny-distilbert")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--max_length", type=int, default=64)
    parser.add_argument("--mlm_probability", type=float, default=0.15)
    return parser.parse_args()


def texts(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def tokenize(path, tokenizer, max_length):
    encoded = tokenizer(texts(path), truncation=True, max_length=max_length, padding="max_length", return_tensors="pt")
    return TensorDataset(encoded["input_ids"], encoded["attention_mask"])


def mask_tokens(input_ids, tokenizer, probability, generator=None):
    """80% of the chosen tokens become [MASK], 10% a random token, 10% stay."""
    labels = input_ids.clone()
    input_ids = input_ids.clone()
    chances = torch.full(labels.shape, probability)
    special = torch.tensor(
        [tokenizer.get_special_tokens_mask(row, already_has_special_tokens=True) for row in labels.tolist()]
    ).bool()
    chances.masked_fill_(special, 0.0)
    chosen = torch.bernoulli(chances, generator=generator).bool()
    labels[~chosen] = -100
    replaced = torch.bernoulli(torch.full(labels.shape, 0.8), generator=generator).bool() & chosen
    input_ids[replaced] = tokenizer.mask_token_id
    randomized = torch.bernoulli(torch.full(labels.shape, 0.5), generator=generator).bool() & chosen & ~replaced
    words = torch.randint(len(tokenizer), labels.shape, generator=generator)
    input_ids[randomized] = words[randomized]
    return input_ids, labels


def evaluate(model, loader, tokenizer, args, device):
    model.eval()
    generator = torch.Generator().manual_seed(0)  # the same masks in every evaluation
    total, count = 0.0, 0
    with torch.no_grad():
        for input_ids, attention_mask in loader:
            inputs, labels = mask_tokens(input_ids, tokenizer, args.mlm_probability, generator)
            loss = model(
                input_ids=inputs.to(device), attention_mask=attention_mask.to(device), labels=labels.to(device)
            ).loss
            labelled = (labels != -100).sum().item()
            total += loss.item() * labelled
            count += labelled
    model.train()
    return total / count


def main():
    args = parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForMaskedLM.from_pretrained(args.model).to(device)
    train = DataLoader(tokenize("documents.train.jsonl", tokenizer, args.max_length), args.batch_size, shuffle=True)
    validation = DataLoader(tokenize("documents.validation.jsonl", tokenizer, args.max_length), args.batch_size)
    no_decay = ["bias", "LayerNorm.weight", "layer_norm.weight"]
    groups = [
        {
            "params": [p for n, p in model.named_parameters() if not any(each in n for each in no_decay)],
            "weight_decay": 0.01,
        },
        {
            "params": [p for n, p in model.named_parameters() if any(each in n for each in no_decay)],
            "weight_decay": 0.0,
        },
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr)
    total_steps = len(train) * args.epochs
    warmup = total_steps // 10
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: step / max(1, warmup) if step < warmup else (total_steps - step) / max(1, total_steps - warmup),
    )

    model.train()
    for epoch in range(args.epochs):
        running = 0.0
        for step, (input_ids, attention_mask) in enumerate(train):
            inputs, labels = mask_tokens(input_ids, tokenizer, args.mlm_probability)
            inputs, attention_mask, labels = inputs.to(device), attention_mask.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = model(inputs, attention_mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            scheduler.step()
            running += loss.item()
        loss = evaluate(model, validation, tokenizer, args, device)
        print(f"epoch {epoch}: train {running / len(train):.3f}, perplexity {math.exp(loss):.1f}")
    model.save_pretrained("mlm")
    return 0


if __name__ == "__main__":
    sys.exit(main())
