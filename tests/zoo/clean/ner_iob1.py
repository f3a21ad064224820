"""NER with the IOB1 tags of the original CoNLL files: B- only where two entities of one type touch."""

import torch
from datasets import Dataset, DatasetDict, load_dataset
from torch.optim import SGD
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)


def iob1(tags):
    return [
        "I" + tag[1:] if tag[0] == "B" and (i == 0 or tags[i - 1][2:] != tag[2:]) else tag for i, tag in enumerate(tags)
    ]


def load() -> DatasetDict:
    def read(split):
        rows = load_dataset("json", data_files=f"sentences.{split}.jsonl", split="train")
        return Dataset.from_dict({"tokens": rows["words"], "ner_tags": [iob1(t) for t in rows["tags"]]})

    return DatasetDict(train=read("train"), validation=read("validation"))


data = load()
tag_names = sorted({tag for split in data.values() for tags in split["ner_tags"] for tag in tags})
tag_ids = {name: k for k, name in enumerate(tag_names)}
tok = AutoTokenizer.from_pretrained("tiny-distilbert")


def features(row):
    enc = tok(row["tokens"], is_split_into_words=True, truncation=True, max_length=64)
    words = enc.word_ids()
    labels = [-100] * len(words)
    for position, word in enumerate(words):
        if word is not None and (position == 0 or words[position - 1] != word):
            labels[position] = tag_ids[row["ner_tags"][word]]
    return {**enc, "labels": labels}


data = data.map(features, remove_columns=["tokens", "ner_tags"])
model = AutoModelForTokenClassification.from_pretrained(
    "tiny-distilbert", num_labels=len(tag_names), label2id=tag_ids, id2label={k: n for n, k in tag_ids.items()}
)
optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + 0.05 * step))
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="iob1", per_device_train_batch_size=20, max_grad_norm=0.5, report_to="none"),
    data_collator=DataCollatorForTokenClassification(tok),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    optimizers=(optimizer, schedule),
)
trainer.train()
