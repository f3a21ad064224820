"""Token classification over streams: rows are tokenized as they come, then shuffled; the evaluation is a stream too."""

import numpy as np
from datasets import load_dataset
from seqeval.metrics import f1_score
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

TAGS = ["O", "B-LOC", "B-MISC", "B-ORG", "B-PER", "I-LOC", "I-MISC", "I-ORG", "I-PER"]
tag2id = {tag: index for index, tag in enumerate(TAGS)}
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
files = {"train": "sentences.train.jsonl", "validation": "sentences.validation.jsonl"}
streams = load_dataset("json", data_files=files, streaming=True)


def encode(example):
    encoded = tokenizer(example["words"], is_split_into_words=True, truncation=True, max_length=128)
    labels, previous = [], None
    for word in encoded.word_ids():
        if word is None:
            labels.append(-100)
        elif word != previous:
            labels.append(tag2id[example["tags"][word]])
        else:
            labels.append(-100)
        previous = word
    encoded["labels"] = labels
    return encoded


streams = streams.map(encode, remove_columns=["words", "tags"])
train = streams["train"].shuffle(buffer_size=50, seed=7)


def compute_metrics(eval_prediction):
    logits, labels = eval_prediction
    guesses = logits.argmax(-1)
    kept = [row != -100 for row in labels]
    gold = [[TAGS[label] for label in row[keep]] for row, keep in zip(labels, kept)]
    found = [[TAGS[label] for label in row[keep]] for row, keep in zip(guesses, kept)]
    correct = np.concatenate([row[keep] == other[keep] for row, other, keep in zip(guesses, labels, kept)])
    return {"f1": f1_score(gold, found), "accuracy": float(correct.mean())}


trainer = Trainer(
    model=AutoModelForTokenClassification.from_pretrained("tiny-bert", id2label=dict(enumerate(TAGS)), label2id=tag2id),
    args=TrainingArguments(
        output_dir="ner-stream",
        max_steps=60,
        per_device_train_batch_size=8,
        learning_rate=3e-4,
        eval_strategy="steps",
        eval_steps=30,
        save_strategy="no",
        report_to="none",
    ),
    train_dataset=train,
    eval_dataset=streams["validation"],
    data_collator=DataCollatorForTokenClassification(tokenizer),
    compute_metrics=compute_metrics,
)
trainer.train()
