"""A GRU encoder-decoder whose forward draws between teacher forcing and its own words; batches made by length."""

import json
import random

import torch
import torch.nn as nn

random.seed(1234)
torch.manual_seed(1234)
SPECIAL = ["<unk>", "<pad>", "<sos>", "<eos>"]


class Vocab:
    def __init__(self, texts):
        words = sorted({w for t in texts for w in t})
        self.itos = SPECIAL + words
        self.stoi = {w: i for i, w in enumerate(self.itos)}

    def __call__(self, words):
        return [2] + [self.stoi.get(w, 0) for w in words] + [3]

    def __len__(self):
        return len(self.itos)


def load(split):
    return [
        (r["source"].lower().split(), r["target"].lower().split())
        for r in map(json.loads, open(f"translations.{split}.jsonl"))
    ]


train_data, valid_data = load("train"), load("validation")
SRC, TRG = Vocab(s for s, _ in train_data), Vocab(t for _, t in train_data)
PAD = 1


class BucketIterator:
    def __init__(self, data, batch_size, train):
        self.data, self.batch_size, self.train = data, batch_size, train

    def __len__(self):
        return -(-len(self.data) // self.batch_size)

    def __iter__(self):
        rows = sorted(self.data, key=lambda p: len(p[0]))
        chunks = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        if self.train:
            random.shuffle(chunks)
        for chunk in chunks:
            yield self.pad([SRC(s) for s, _ in chunk]), self.pad([TRG(t) for _, t in chunk])

    @staticmethod
    def pad(rows):
        n = max(map(len, rows))
        return torch.tensor([r + [PAD] * (n - len(r)) for r in rows]).t()


class Encoder(nn.Module):
    def __init__(self, n, dim=24, dropout=0.2):
        super().__init__()
        self.embedding, self.rnn, self.dropout = nn.Embedding(n, dim), nn.GRU(dim, dim), nn.Dropout(dropout)

    def forward(self, src):
        return self.rnn(self.dropout(self.embedding(src)))[1]


class Decoder(nn.Module):
    def __init__(self, n, dim=24, dropout=0.2):
        super().__init__()
        self.output_dim = n
        self.embedding, self.rnn = nn.Embedding(n, dim), nn.GRU(2 * dim, dim)
        self.fc_out, self.dropout = nn.Linear(3 * dim, n), nn.Dropout(dropout)

    def forward(self, input, hidden, context):
        embedded = self.dropout(self.embedding(input.unsqueeze(0)))
        output, hidden = self.rnn(torch.cat((embedded, context), dim=2), hidden)
        output = torch.cat((embedded.squeeze(0), hidden.squeeze(0), context.squeeze(0)), dim=1)
        return self.fc_out(output), hidden


class Seq2Seq(nn.Module):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, src, trg, teacher_forcing_ratio=0.5):
        outputs = torch.zeros(trg.shape[0], trg.shape[1], self.decoder.output_dim)
        context = self.encoder(src)
        hidden, input = context, trg[0, :]
        for t in range(1, trg.shape[0]):
            output, hidden = self.decoder(input, hidden, context)
            outputs[t] = output
            input = trg[t] if random.random() < teacher_forcing_ratio else output.argmax(1)
        return outputs


model = Seq2Seq(Encoder(len(SRC)), Decoder(len(TRG)))
model.apply(lambda m: [nn.init.normal_(p, 0, 0.01) for p in m.parameters(recurse=False)])
optimizer = torch.optim.Adam(model.parameters())
criterion = nn.CrossEntropyLoss(ignore_index=PAD)


def train(model, iterator, optimizer, criterion, clip):
    model.train()
    epoch_loss = 0
    for src, trg in iterator:
        optimizer.zero_grad()
        output = model(src, trg)
        output_dim = output.shape[-1]
        output = output[1:].view(-1, output_dim)
        trg = trg[1:].reshape(-1)
        loss = criterion(output, trg)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        epoch_loss += loss.item()
    return epoch_loss / len(iterator)


def evaluate(model, iterator, criterion):
    model.eval()
    epoch_loss = 0
    with torch.no_grad():
        for src, trg in iterator:
            output = model(src, trg, 0)
            output = output[1:].view(-1, output.shape[-1])
            epoch_loss += criterion(output, trg[1:].reshape(-1)).item()
    return epoch_loss / len(iterator)


best = float("inf")
for epoch in range(3):
    train_loss = train(model, BucketIterator(train_data, 16, True), optimizer, criterion, 1)
    valid_loss = evaluate(model, BucketIterator(valid_data, 16, False), criterion)
    print(epoch, train_loss, valid_loss)
    if valid_loss < best:
        best = valid_loss
        torch.save(model.state_dict(), "tut1-model.pt")
