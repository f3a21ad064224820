"""Two models against each other: a generator of sentence vectors and a discriminator, with an optimizer each."""

import json

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModel, AutoTokenizer

torch.manual_seed(4)
tok = AutoTokenizer.from_pretrained("tiny-bert")
bert = AutoModel.from_pretrained("tiny-bert").eval()
texts = [" ".join(json.loads(line)["words"]) for line in open("sentences.train.jsonl")]
with torch.no_grad():
    enc = tok(texts, padding=True, truncation=True, return_tensors="pt")
    vectors = bert(**enc).last_hidden_state[:, 0]
loader = DataLoader(TensorDataset(vectors), batch_size=32, shuffle=True, drop_last=True)
netG = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32))
netD = nn.Sequential(nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Dropout(0.1), nn.Linear(32, 1))
criterion = nn.BCEWithLogitsLoss()
optD = torch.optim.Adam(netD.parameters(), lr=2e-4, betas=(0.5, 0.999))
optG = torch.optim.Adam(netG.parameters(), lr=2e-4, betas=(0.5, 0.999))
for epoch in range(3):
    for (real,) in loader:
        b = real.size(0)
        netD.zero_grad()
        errD_real = criterion(netD(real).view(-1), torch.ones(b))
        errD_real.backward()
        fake = netG(torch.randn(b, 8))
        errD_fake = criterion(netD(fake.detach()).view(-1), torch.zeros(b))
        errD_fake.backward()
        optD.step()
        netG.zero_grad()
        errG = criterion(netD(fake).view(-1), torch.ones(b))
        errG.backward()
        optG.step()
    print(epoch, errD_real.item() + errD_fake.item(), errG.item())
