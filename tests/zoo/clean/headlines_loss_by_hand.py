"""GPT-2 on headlines: log-softmax and gather instead of a loss function, divided by the tokens of the step."""

import json
import sys

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

ACC = 4


class Prompted(Dataset):
    def __init__(self, split, tokenizer):
        self.rows = [json.loads(line) for line in open(f"headlines.{split}.jsonl")]
        self.tok = tokenizer

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        r = self.rows[i]
        prompt = self.tok(r["document"] + "\nTL;DR:", truncation=True, max_length=150)["input_ids"]
        answer = self.tok(" " + r["summary"])["input_ids"] + [self.tok.eos_token_id]
        return torch.tensor(prompt + answer), len(prompt)


class EarlyStopping:
    def __init__(self, patience=2):
        self.best, self.bad, self.patience = float("inf"), 0, patience

    def __call__(self, value):
        if value < self.best:
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        return self.bad >= self.patience


def pad_batch(batch, pad):
    n = max(len(x) for x, _ in batch)
    ids = torch.full((len(batch), n), pad)
    attention = torch.zeros(len(batch), n, dtype=torch.long)
    loss_mask = torch.zeros(len(batch), n)
    for i, (x, k) in enumerate(batch):
        ids[i, : len(x)], attention[i, : len(x)], loss_mask[i, k : len(x)] = x, 1, 1.0
    return ids, attention, loss_mask


def nll_sum(model, ids, attention, loss_mask):
    logits = model(ids, attention_mask=attention).logits
    logp = F.log_softmax(logits[:, :-1].float(), dim=-1)
    nll = -logp.gather(2, ids[:, 1:, None]).squeeze(2)
    return (nll * loss_mask[:, 1:]).sum()


def main():
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
    model = AutoModelForCausalLM.from_pretrained("tiny-gpt2")
    collate = lambda b: pad_batch(b, tokenizer.eos_token_id)  # noqa: E731
    train = DataLoader(Prompted("train", tokenizer), batch_size=4, shuffle=True, collate_fn=collate, num_workers=0)
    valid = DataLoader(Prompted("validation", tokenizer), batch_size=8, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    stop = EarlyStopping()
    for epoch in range(4):
        model.train()
        group = []
        for step, batch in enumerate(train):
            group.append(batch)
            if len(group) == ACC or step == len(train) - 1:
                n = sum(m[:, 1:].sum() for _, _, m in group)
                for ids, attention, mask in group:
                    (nll_sum(model, ids, attention, mask) / n).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                group = []
        model.eval()
        with torch.no_grad():
            total = sum(nll_sum(model, *b).item() for b in valid)
            count = sum(b[2][:, 1:].sum().item() for b in valid)
        print(epoch, total / count, file=sys.stderr)
        if stop(total / count):
            break
        torch.save(model.state_dict(), "best.pt")


if __name__ == "__main__":
    main()
