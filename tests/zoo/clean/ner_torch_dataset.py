"""Token classification on a torch Dataset that tokenizes word by word in __getitem__, with a collator of its own."""

import json

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import AutoModelForTokenClassification, AutoTokenizer, Trainer, TrainingArguments

MAX_LEN = 64
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")


def read(path):
    sentences, tags = [], []
    with open(path, encoding="utf-8") as f:
        for line in f:
            row = json.loads(line)
            sentences.append(" ".join(row["words"]))
            tags.append(" ".join(row["tags"]))
    return sentences, tags


train_texts, train_tags = read("sentences.train.jsonl")
dev_texts, dev_tags = read("sentences.validation.jsonl")
unique_tags = ["O"] + sorted({tag for line in train_tags for tag in line.split()} - {"O"})
tag2id = {tag: i for i, tag in enumerate(unique_tags)}


class NERDataset(Dataset):
    def __init__(self, texts, tags):
        self.texts = texts
        self.tags = tags

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        ids, targets = [], []
        for word, tag in zip(self.texts[index].split(), self.tags[index].split()):
            pieces = tokenizer.encode(word, add_special_tokens=False)
            ids.extend(pieces)
            inside = "I" + tag[1:] if tag != "O" else tag
            targets.extend([tag2id[tag]] + [tag2id[inside]] * (len(pieces) - 1))
        ids = [tokenizer.cls_token_id] + ids[: MAX_LEN - 2] + [tokenizer.sep_token_id]
        targets = [-100] + targets[: MAX_LEN - 2] + [-100]
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.ones(len(ids), dtype=torch.long),
            "labels": torch.tensor(targets),
        }


def collate(features):
    return {
        "input_ids": pad_sequence(
            [f["input_ids"] for f in features], batch_first=True, padding_value=tokenizer.pad_token_id
        ),
        "attention_mask": pad_sequence([f["attention_mask"] for f in features], batch_first=True, padding_value=0),
        "labels": pad_sequence([f["labels"] for f in features], batch_first=True, padding_value=-100),
    }


model = AutoModelForTokenClassification.from_pretrained("tiny-bert", num_labels=len(unique_tags), dtype="float32")
model.config.id2label = dict(enumerate(unique_tags))
model.config.label2id = tag2id
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="out", per_device_train_batch_size=16, num_train_epochs=1, report_to="none"),
    train_dataset=NERDataset(train_texts, train_tags),
    eval_dataset=NERDataset(dev_texts, dev_tags),
    data_collator=collate,
)
trainer.train()
