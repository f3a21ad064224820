"""Short texts packed into rows: position ids begin anew in each text, and no text sees its neighbours."""

import json

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import AutoTokenizer, GPT2LMHeadModel

LENGTH = 128


class Packed(Dataset):
    """Rows of several whole texts. The first token of each text is no target: nothing precedes it."""

    def __init__(self, path, tokenizer, length=LENGTH):
        self.pad = tokenizer.eos_token_id
        self.length = length
        self.rows = [[]]
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                ids = tokenizer(json.loads(line)["summary"])["input_ids"][: length - 1] + [tokenizer.eos_token_id]
                if sum(map(len, self.rows[-1])) + len(ids) > length:
                    self.rows.append([])
                self.rows[-1].append(ids)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        ids, labels, positions, texts = [], [], [], []
        for number, text in enumerate(self.rows[index]):
            ids += text
            labels += [-100] + text[1:]
            positions += range(len(text))
            texts += [number] * len(text)
        missing = self.length - len(ids)
        return {
            "input_ids": torch.tensor(ids + [self.pad] * missing),
            "labels": torch.tensor(labels + [-100] * missing),
            "position_ids": torch.tensor(positions + [0] * missing),
            "texts": torch.tensor(texts + [-1] * missing),
        }


def collate(rows):
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    texts = batch.pop("texts")
    same = texts[:, None, :] == texts[:, :, None]
    causal = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    allowed = (same & causal)[:, None]
    batch["attention_mask"] = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return batch


def main():
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
    model = GPT2LMHeadModel.from_pretrained("tiny-gpt2")
    loader = DataLoader(Packed("headlines.train.jsonl", tokenizer), batch_size=4, shuffle=True, collate_fn=collate)
    held_out = DataLoader(Packed("headlines.validation.jsonl", tokenizer), batch_size=4, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(3):
        model.train()
        for batch in loader:
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            losses, counts = zip(
                *[(model(**b).loss.item(), (b["labels"][:, 1:] != -100).sum().item()) for b in held_out]
            )
        print(epoch, sum(loss * n for loss, n in zip(losses, counts)) / sum(counts))


if __name__ == "__main__":
    main()
