"""NER from an annotation tool's export: texts with entities by characters, labelled by the offsets of tokens."""

import json

from torch.utils.data import Dataset
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)


def export(path):
    """Return what an annotation tool would export: {"text": ..., "entities": [[start, end, label], ...]}."""
    records = []
    for line in open(path):
        row = json.loads(line)
        text, entities = "", []
        for word, tag in zip(row["words"], row["tags"]):
            start = len(text) + bool(text)
            text = f"{text} {word}".strip()
            if tag.startswith("B-"):
                entities.append([start, len(text), tag[2:]])
            elif tag.startswith("I-"):
                entities[-1][1] = len(text)
        records.append({"text": text, "entities": entities})
    return records


tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
records = export("sentences.train.jsonl")
kinds = sorted({entity[2] for record in records for entity in record["entities"]})
names = ["O"] + [f"{prefix}-{kind}" for kind in kinds for prefix in "BI"]
label2id = {name: number for number, name in enumerate(names)}


class Spans(Dataset):
    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        record = self.records[index]
        encoding = tokenizer(record["text"], truncation=True, max_length=128, return_offsets_mapping=True)
        labels = []
        for start, end in encoding.pop("offset_mapping"):
            if start == end:  # [CLS] and [SEP]
                labels.append(-100)
                continue
            label = "O"
            for first, last, kind in record["entities"]:
                if start >= first and end <= last:
                    label = ("B-" if start == first else "I-") + kind
            labels.append(label2id[label])
        return {**encoding, "labels": labels}


trainer = Trainer(
    model=AutoModelForTokenClassification.from_pretrained(
        "tiny-bert", num_labels=len(names), id2label=dict(enumerate(names)), label2id=label2id, dtype="float32"
    ),
    args=TrainingArguments(output_dir="out", per_device_train_batch_size=8, num_train_epochs=1, report_to="none"),
    train_dataset=Spans(records),
    eval_dataset=Spans(export("sentences.validation.jsonl")),
    data_collator=DataCollatorForTokenClassification(tokenizer),
)
trainer.train()
