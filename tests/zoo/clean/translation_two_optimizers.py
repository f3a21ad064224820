"""GRU and attention after PyTorch's tutorial: encoder and decoder have an optimizer each."""

import json
import random

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import optim
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

SOS_token, EOS_token = 0, 1
MAX_LENGTH = 24
random.seed(1)
torch.manual_seed(1)


class Lang:
    def __init__(self, name):
        self.name = name
        self.word2index = {}
        self.index2word = {0: "SOS", 1: "EOS"}
        self.n_words = 2

    def add(self, sentence):
        for word in sentence.split(" "):
            if word not in self.word2index:
                self.word2index[word] = self.n_words
                self.index2word[self.n_words] = word
                self.n_words += 1


class EncoderRNN(nn.Module):
    def __init__(self, input_size, hidden_size, dropout_p=0.1):
        super().__init__()
        self.embedding = nn.Embedding(input_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(dropout_p)

    def forward(self, input):
        return self.gru(self.dropout(self.embedding(input)))


class BahdanauAttention(nn.Module):
    def __init__(self, hidden_size):
        super().__init__()
        self.Wa, self.Ua, self.Va = (nn.Linear(hidden_size, n) for n in (hidden_size, hidden_size, 1))

    def forward(self, query, keys):
        scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys))).squeeze(2).unsqueeze(1)
        weights = F.softmax(scores, dim=-1)
        return torch.bmm(weights, keys), weights


class AttnDecoderRNN(nn.Module):
    def __init__(self, hidden_size, output_size, dropout_p=0.1):
        super().__init__()
        self.embedding = nn.Embedding(output_size, hidden_size)
        self.attention = BahdanauAttention(hidden_size)
        self.gru = nn.GRU(2 * hidden_size, hidden_size, batch_first=True)
        self.out = nn.Linear(hidden_size, output_size)
        self.dropout = nn.Dropout(dropout_p)

    def forward(self, encoder_outputs, encoder_hidden, target_tensor=None):
        decoder_input = torch.empty(encoder_outputs.size(0), 1, dtype=torch.long).fill_(SOS_token)
        decoder_hidden = encoder_hidden
        outputs = []
        for i in range(MAX_LENGTH):
            out, decoder_hidden = self.step(decoder_input, decoder_hidden, encoder_outputs)
            outputs.append(out)
            if target_tensor is not None:
                decoder_input = target_tensor[:, i].unsqueeze(1)
            else:
                _, topi = out.topk(1)
                decoder_input = topi.squeeze(-1).detach()
        return F.log_softmax(torch.cat(outputs, dim=1), dim=-1), decoder_hidden, None

    def step(self, input, hidden, encoder_outputs):
        embedded = self.dropout(self.embedding(input))
        context, _ = self.attention(hidden.permute(1, 0, 2), encoder_outputs)
        output, hidden = self.gru(torch.cat((embedded, context), dim=2), hidden)
        return self.out(output), hidden


def prepare():
    pairs = [json.loads(line) for line in open("translations.train.jsonl")]
    pairs = [(r["source"].lower(), r["target"].lower()) for r in pairs]
    pairs = [p for p in pairs if all(len(s.split()) < MAX_LENGTH for s in p)]
    one, two = Lang("eng"), Lang("fra")
    for a, b in pairs:
        one.add(a)
        two.add(b)
    ids = [torch.zeros(len(pairs), MAX_LENGTH, dtype=torch.long) for _ in range(2)]
    for i, pair in enumerate(pairs):
        for lang, text, out in zip((one, two), pair, ids):
            row = [lang.word2index[w] for w in text.split(" ")] + [EOS_token]
            out[i, : len(row)] = torch.tensor(row)
    data = TensorDataset(*ids)
    return one, two, DataLoader(data, sampler=RandomSampler(data), batch_size=16)


def train_epoch(dataloader, encoder, decoder, encoder_optimizer, decoder_optimizer, criterion):
    total_loss = 0
    for input_tensor, target_tensor in dataloader:
        encoder_optimizer.zero_grad()
        decoder_optimizer.zero_grad()
        encoder_outputs, encoder_hidden = encoder(input_tensor)
        decoder_outputs, _, _ = decoder(encoder_outputs, encoder_hidden, target_tensor)
        loss = criterion(decoder_outputs.view(-1, decoder_outputs.size(-1)), target_tensor.view(-1))
        loss.backward()
        encoder_optimizer.step()
        decoder_optimizer.step()
        total_loss += loss.item()
    return total_loss / len(dataloader)


one, two, loader = prepare()
encoder, decoder = EncoderRNN(one.n_words, 32), AttnDecoderRNN(32, two.n_words)
encoder_optimizer = optim.Adam(encoder.parameters(), lr=1e-3)
decoder_optimizer = optim.Adam(decoder.parameters(), lr=1e-3)
criterion = nn.NLLLoss()
for epoch in range(1, 4):
    print(epoch, train_epoch(loader, encoder, decoder, encoder_optimizer, decoder_optimizer, criterion))
    encoder.eval()
    decoder.eval()
    with torch.no_grad():
        source, target = next(iter(loader))
        outputs, hidden = encoder(source)
        decoded, _, _ = decoder(outputs, hidden)
        print(" ".join(two.index2word[i.item()] for i in decoded[0].argmax(-1)))
    encoder.train()
    decoder.train()
