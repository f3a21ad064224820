"""NER with bottleneck adapters in a frozen BERT: a gate and an up-projection in a row, log-probabilities, NLLLoss."""

import json
import logging

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
log = logging.getLogger("adapters")
TAGS = ["O", "B-LOC", "B-MISC", "B-ORG", "B-PER", "I-LOC", "I-MISC", "I-ORG", "I-PER"]
ACCUMULATE = 4


class Adapter(nn.Module):
    """x + up(relu(down(x))), with `up` at zero, so that training begins at the pretrained model."""

    def __init__(self, layer, width, size=8):
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.gate = nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = self.layer(x)
        return x + torch.tanh(self.gate) * self.up(torch.relu(self.down(x)))


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.bert = AutoModel.from_pretrained("tiny-bert", add_pooling_layer=False).requires_grad_(False)
        width = self.bert.config.hidden_size
        for block in self.bert.encoder.layer:
            block.output.dense = Adapter(block.output.dense, width)
        self.head = nn.Linear(width, len(TAGS))

    def forward(self, input_ids, attention_mask):
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return torch.log_softmax(self.head(hidden), dim=-1)


def load(split):
    with open(f"sentences.{split}.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


tokenizer = AutoTokenizer.from_pretrained("tiny-bert")


def collate(rows):
    batch = tokenizer([row["words"] for row in rows], is_split_into_words=True, padding=True, return_tensors="pt")
    labels = torch.full(batch["input_ids"].shape, -100)
    for i, row in enumerate(rows):
        before = None
        for j, word in enumerate(batch.word_ids(i)):
            if word is not None and word != before:
                labels[i, j] = TAGS.index(row["tags"][word])
            before = word
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}


torch.manual_seed(3)
model = Tagger()
criterion = nn.NLLLoss()  # the model returns log-probabilities
train_loader = DataLoader(load("train"), batch_size=5, shuffle=True, collate_fn=collate)
valid_loader = DataLoader(load("validation"), batch_size=16, collate_fn=collate)
optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)


def validate():
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in valid_loader:
            labels = batch.pop("labels")
            loss = criterion(model(**batch).flatten(0, 1), labels.flatten())
            n = (labels != -100).sum().item()
            total += loss.item() * n
            count += n
    return total / count


for epoch in range(2):
    model.train()
    running = 0.0
    bar = tqdm(train_loader)
    for step, batch in enumerate(bar, start=1):
        labels = batch.pop("labels")
        loss = criterion(model(**batch).flatten(0, 1), labels.flatten())
        (loss / ACCUMULATE).backward()
        running += loss.item()
        if step % ACCUMULATE == 0:
            optimizer.step()
            optimizer.zero_grad()
            bar.set_postfix(loss=running / step)
    log.info("epoch %d train loss %.4f val loss %.4f", epoch, running / len(train_loader), validate())
