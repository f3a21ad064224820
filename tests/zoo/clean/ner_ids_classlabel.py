"""Token classification with ClassLabel ids, part-of-speech tags beside them, left padding, and two calls of map."""

import json

from datasets import ClassLabel, Dataset, Features, Sequence, Value
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

NAMES = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
features = Features(
    {
        "tokens": Sequence(Value("string")),
        "pos_tags": Sequence(ClassLabel(names=["WORD", "NAME", "PUNCT"])),
        "ner_tags": Sequence(ClassLabel(names=NAMES)),
    }
)


def read(path):
    rows = [json.loads(line) for line in open(path)]
    return Dataset.from_dict(
        {
            "tokens": [row["words"] for row in rows],
            "pos_tags": [
                ["PUNCT" if not w.isalnum() else "NAME" if w[0].isupper() else "WORD" for w in row["words"]]
                for row in rows
            ],
            "ner_tags": [row["tags"] for row in rows],
        },
        features=features,
    )


train, test = read("sentences.train.jsonl"), read("sentences.validation.jsonl")
labels = train.features["ner_tags"].feature
tokenizer = AutoTokenizer.from_pretrained("tiny-bert", padding_side="left")


def tokenize(batch):
    return tokenizer(batch["tokens"], is_split_into_words=True, truncation=True)


def add_labels(example, index):
    encoded = tokenizer(example["tokens"], is_split_into_words=True, truncation=True)
    result, previous = [], None
    for word in encoded.word_ids():
        if word is None or word == previous:
            result.append(-100)
        else:
            result.append(example["ner_tags"][word])
        previous = word
    return {"labels": result, "row": index}


def prepare(dataset):
    dataset = dataset.map(tokenize, batched=True).map(add_labels, with_indices=True)
    return dataset.filter(lambda row: len(row["tokens"]) > 2)


model = AutoModelForTokenClassification.from_pretrained(
    "tiny-bert",
    num_labels=labels.num_classes,
    id2label={i: labels.int2str(i) for i in range(labels.num_classes)},
    label2id={name: i for i, name in enumerate(labels.names)},
    dtype="float32",
)
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="out", per_device_train_batch_size=8, report_to="none"),
    train_dataset=prepare(train),
    eval_dataset=prepare(test),
    processing_class=tokenizer,
    data_collator=DataCollatorForTokenClassification(tokenizer),
)
trainer.train()
