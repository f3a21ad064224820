"""A BiLSTM tagger of words with a dict as vocabulary, packed sequences, and tags padded with -1."""

import json
from collections import Counter

import torch
import torch.nn as nn
from seqeval.metrics import f1_score
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader

PAD, UNK = "<pad>", "<unk>"
torch.manual_seed(0)


def read(path):
    return [json.loads(line) for line in open(path)]


train, valid = read("sentences.train.jsonl"), read("sentences.validation.jsonl")
counts = Counter(w.lower() for r in train for w in r["words"])
word2idx = {PAD: 0, UNK: 1}
for w, c in counts.items():
    if c > 1:
        word2idx[w] = len(word2idx)
tag2idx = {}
for r in train:
    for t in r["tags"]:
        tag2idx.setdefault(t, len(tag2idx))
idx2tag = {i: t for t, i in tag2idx.items()}


def collate(batch):
    batch.sort(key=lambda r: len(r["words"]), reverse=True)
    xs = [torch.tensor([word2idx.get(w.lower(), 1) for w in r["words"]]) for r in batch]
    ys = [torch.tensor([tag2idx[t] for t in r["tags"]]) for r in batch]
    lengths = torch.tensor([len(x) for x in xs])
    return pad_sequence(xs, batch_first=True), pad_sequence(ys, batch_first=True, padding_value=-1), lengths


class BiLSTM(nn.Module):
    def __init__(self, n_words, n_tags, dim=32):
        super().__init__()
        self.embedding = nn.Embedding(n_words, dim, padding_idx=0)
        self.lstm = nn.LSTM(dim, dim, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(2 * dim, n_tags)

    def forward(self, sentence, lengths):
        x = self.dropout(self.embedding(sentence))
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True)
        out, _ = self.lstm(packed)
        out, _ = pad_packed_sequence(out, batch_first=True)
        return self.fc(self.dropout(out))


train_iter = DataLoader(train, batch_size=16, shuffle=True, collate_fn=collate)
valid_iter = DataLoader(valid, batch_size=16, collate_fn=collate)
model = BiLSTM(len(word2idx), len(tag2idx))
criterion = nn.CrossEntropyLoss(ignore_index=-1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=1)


def train_one_epoch(model, loader, optimizer, criterion):
    model.train()
    total = 0
    for sentence, tags, lengths in loader:
        optimizer.zero_grad()
        predictions = model(sentence, lengths)
        loss = criterion(predictions.view(-1, predictions.shape[-1]), tags.view(-1))
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


@torch.no_grad()
def evaluate(model, loader):
    model.eval()
    gold, pred = [], []
    for sentence, tags, lengths in loader:
        best = model(sentence, lengths).argmax(-1)
        for row, guess, n in zip(tags, best, lengths):
            gold.append([idx2tag[i.item()] for i in row[:n]])
            pred.append([idx2tag[i.item()] for i in guess[:n]])
    return f1_score(gold, pred)


for epoch in range(3):
    loss = train_one_epoch(model, train_iter, optimizer, criterion)
    f1 = evaluate(model, valid_iter)
    scheduler.step(f1)
    print(f"epoch {epoch + 1}: loss {loss:.3f} f1 {f1:.3f}")
torch.save(model.state_dict(), "tagger.pt")
