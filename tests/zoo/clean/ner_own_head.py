"""A tagger of one's own: BERT encoder, BiLSTM and a linear layer; padding is left out of the loss by the mask."""

import json
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer


@dataclass
class Config:
    encoder: str = "tiny-bert"
    hidden: int = 24
    dropout: float = 0.2
    lr_encoder: float = 1e-4
    lr_head: float = 1e-3
    batch_size: int = 12
    epochs: int = 2


class Tagger(nn.Module):
    """Reads the first subword of every word."""

    def __init__(self, config, n_tags):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(config.encoder, add_pooling_layer=False)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(self.encoder.config.hidden_size, config.hidden, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * config.hidden, n_tags)

    def forward(self, input_ids, attention_mask, starts):
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        words = states.gather(1, starts.unsqueeze(-1).expand(-1, -1, states.size(-1)))
        hidden, _ = self.lstm(self.dropout(words))
        return self.out(self.dropout(hidden))


class Batcher:
    def __init__(self, tokenizer, vocabulary):
        self.tokenizer, self.vocabulary = tokenizer, vocabulary

    def __call__(self, sentences):
        enc = self.tokenizer(
            [s["words"] for s in sentences], is_split_into_words=True, padding=True, return_tensors="pt"
        )
        width = max(len(s["words"]) for s in sentences)
        starts = torch.zeros(len(sentences), width, dtype=torch.long)
        tags = torch.zeros(len(sentences), width, dtype=torch.long)
        word_mask = torch.zeros(len(sentences), width, dtype=torch.bool)
        for i, s in enumerate(sentences):
            ids = enc.word_ids(i)
            for w, tag in enumerate(s["tags"]):
                starts[i, w] = ids.index(w)
                tags[i, w] = self.vocabulary[tag]
            word_mask[i, : len(s["tags"])] = True
        return enc["input_ids"], enc["attention_mask"], starts, tags, word_mask


def masked_loss(logits, tags, mask):
    per_word = F.cross_entropy(logits.transpose(1, 2), tags, reduction="none")
    return (per_word * mask).sum() / mask.sum()


def run(config=Config()):
    torch.manual_seed(5)
    train, dev = ([json.loads(line) for line in open(f"sentences.{s}.jsonl")] for s in ("train", "validation"))
    vocabulary = {tag: i for i, tag in enumerate(sorted({t for s in train for t in s["tags"]}))}
    batcher = Batcher(AutoTokenizer.from_pretrained(config.encoder), vocabulary)
    model = Tagger(config, len(vocabulary))
    head = [p for name, p in model.named_parameters() if not name.startswith("encoder.")]
    optimizer = torch.optim.Adam(
        [{"params": model.encoder.parameters(), "lr": config.lr_encoder}, {"params": head, "lr": config.lr_head}]
    )
    loader = DataLoader(train, batch_size=config.batch_size, shuffle=True, collate_fn=batcher, drop_last=False)
    for epoch in range(config.epochs):
        model.train()
        for ids, attention, starts, tags, mask in loader:
            loss = masked_loss(model(ids, attention, starts), tags, mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        right = count = 0
        with torch.no_grad():
            for ids, attention, starts, tags, mask in DataLoader(dev, batch_size=32, collate_fn=batcher):
                guess = model(ids, attention, starts).argmax(-1)
                right += int(((guess == tags) & mask).sum())
                count += int(mask.sum())
        print(f"{epoch}: {right / count:.4f}")


if __name__ == "__main__":
    run()
