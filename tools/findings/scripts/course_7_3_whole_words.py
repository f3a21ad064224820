"""What section 7.3 of the course does with its own collator, which masks whole words."""

from collections import defaultdict

import numpy as np
from datasets import load_dataset
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

checkpoint = "tiny-distilbert"
chunk_size = 128
batch_size = 64
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForMaskedLM.from_pretrained(checkpoint)
raw = load_dataset("json", data_files={"train": "documents.train.jsonl", "test": "documents.validation.jsonl"})


def tokenize(rows):
    encoded = tokenizer(rows["text"])
    if tokenizer.is_fast:
        encoded["word_ids"] = [encoded.word_ids(index) for index in range(len(encoded["input_ids"]))]
    return encoded


def group(rows):
    """Join all texts and cut them into chunks. A remainder is dropped."""
    joined = {name: [each for row in column for each in row] for name, column in rows.items()}
    length = len(joined["input_ids"]) // chunk_size * chunk_size
    chunks = {
        name: [column[start : start + chunk_size] for start in range(0, length, chunk_size)]
        for name, column in joined.items()
    }
    chunks["labels"] = chunks["input_ids"].copy()
    return chunks


chunked = raw.map(tokenize, batched=True, remove_columns=["text"]).map(group, batched=True)
split = chunked["train"].train_test_split(test_size=0.1, seed=42)
word_rate = 0.2


def mask_words(features):
    """Mask one word in five. As in the course, the features are changed in place."""
    for feature in features:
        words, places, number, previous = feature.pop("word_ids"), defaultdict(list), -1, None
        for place, word in enumerate(words):
            if word is None:
                continue
            if word != previous:
                previous = word
                number += 1
            places[number].append(place)
        chosen = np.random.binomial(1, word_rate, (len(places),))
        ids, gold = feature["input_ids"], feature["labels"]
        labels = [-100] * len(gold)
        for number in np.flatnonzero(chosen).tolist():
            for place in places[number]:
                labels[place] = gold[place]
                ids[place] = tokenizer.mask_token_id
        feature["labels"] = labels
    return default_data_collator(features)


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        eval_strategy="epoch",
        learning_rate=2e-5,
        weight_decay=0.01,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        report_to="none",
        remove_unused_columns=False,
    ),
    train_dataset=split["train"],
    eval_dataset=split["test"],
    data_collator=mask_words,
    processing_class=tokenizer,
)
trainer.train()
