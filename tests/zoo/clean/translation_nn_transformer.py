"""Translation with nn.Transformer, after PyTorch's tutorial: time first, masks and vocabulary of its own."""

import json
import math

import torch
import torch.nn as nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

UNK_IDX, PAD_IDX, BOS_IDX, EOS_IDX = 0, 1, 2, 3
torch.manual_seed(0)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def read(path):
    return [json.loads(line) for line in open(path, encoding="utf8")]


def build_vocab(texts):
    vocab = {"<unk>": 0, "<pad>": 1, "<bos>": 2, "<eos>": 3}
    for text in texts:
        for token in text.lower().split():
            vocab.setdefault(token, len(vocab))
    return vocab


train, valid = read("translations.train.jsonl"), read("translations.validation.jsonl")
src_vocab, tgt_vocab = build_vocab(r["source"] for r in train), build_vocab(r["target"] for r in train)


def numericalize(text, vocab):
    return torch.tensor([BOS_IDX] + [vocab.get(t, UNK_IDX) for t in text.lower().split()] + [EOS_IDX])


def collate_fn(batch):
    src = [numericalize(r["source"], src_vocab) for r in batch]
    tgt = [numericalize(r["target"], tgt_vocab) for r in batch]
    return pad_sequence(src, padding_value=PAD_IDX), pad_sequence(tgt, padding_value=PAD_IDX)


class PositionalEncoding(nn.Module):
    def __init__(self, emb_size, dropout, maxlen=200):
        super().__init__()
        den = torch.exp(-torch.arange(0, emb_size, 2) * math.log(10000) / emb_size)
        pos = torch.arange(0, maxlen).reshape(maxlen, 1)
        pe = torch.zeros((maxlen, emb_size))
        pe[:, 0::2] = torch.sin(pos * den)
        pe[:, 1::2] = torch.cos(pos * den)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("pos_embedding", pe.unsqueeze(-2))

    def forward(self, x):
        return self.dropout(x + self.pos_embedding[: x.size(0), :])


class Seq2SeqTransformer(nn.Module):
    def __init__(self, src_size, tgt_size, emb_size=32, nhead=2, dropout=0.1):
        super().__init__()
        self.transformer = nn.Transformer(emb_size, nhead, 2, 2, 64, dropout)
        self.generator = nn.Linear(emb_size, tgt_size)
        self.src_tok_emb = nn.Embedding(src_size, emb_size)
        self.tgt_tok_emb = nn.Embedding(tgt_size, emb_size)
        self.scale = math.sqrt(emb_size)
        self.positional_encoding = PositionalEncoding(emb_size, dropout)

    def forward(self, src, trg, src_mask, tgt_mask, src_padding_mask, tgt_padding_mask, memory_key_padding_mask):
        src_emb = self.positional_encoding(self.src_tok_emb(src) * self.scale)
        tgt_emb = self.positional_encoding(self.tgt_tok_emb(trg) * self.scale)
        outs = self.transformer(
            src_emb, tgt_emb, src_mask, tgt_mask, None, src_padding_mask, tgt_padding_mask, memory_key_padding_mask
        )
        return self.generator(outs)


def create_mask(src, tgt):
    n = tgt.shape[0]
    tgt_mask = torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal=1)
    src_mask = torch.zeros((src.shape[0], src.shape[0]), dtype=torch.bool)
    return src_mask, tgt_mask, (src == PAD_IDX).transpose(0, 1), (tgt == PAD_IDX).transpose(0, 1)


model = Seq2SeqTransformer(len(src_vocab), len(tgt_vocab)).to(DEVICE)
for p in model.parameters():
    if p.dim() > 1:
        nn.init.xavier_uniform_(p)
loss_fn = nn.CrossEntropyLoss(ignore_index=PAD_IDX)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-9)


def train_epoch(model, optimizer):
    model.train()
    losses = 0
    loader = DataLoader(train, batch_size=16, shuffle=True, collate_fn=collate_fn)
    for src, tgt in loader:
        src, tgt = src.to(DEVICE), tgt.to(DEVICE)
        tgt_input = tgt[:-1, :]
        src_mask, tgt_mask, src_pad, tgt_pad = create_mask(src, tgt_input)
        logits = model(src, tgt_input, src_mask, tgt_mask, src_pad, tgt_pad, src_pad)
        optimizer.zero_grad()
        tgt_out = tgt[1:, :]
        loss = loss_fn(logits.reshape(-1, logits.shape[-1]), tgt_out.reshape(-1))
        loss.backward()
        optimizer.step()
        losses += loss.item()
    return losses / len(loader)


def evaluate(model):
    model.eval()
    losses = 0
    loader = DataLoader(valid, batch_size=16, collate_fn=collate_fn)
    with torch.no_grad():
        for src, tgt in loader:
            tgt_input = tgt[:-1, :]
            src_mask, tgt_mask, src_pad, tgt_pad = create_mask(src, tgt_input)
            logits = model(src, tgt_input, src_mask, tgt_mask, src_pad, tgt_pad, src_pad)
            losses += loss_fn(logits.reshape(-1, logits.shape[-1]), tgt[1:, :].reshape(-1)).item()
    return losses / len(loader)


for epoch in range(1, 4):
    print(epoch, train_epoch(model, optimizer), evaluate(model))
