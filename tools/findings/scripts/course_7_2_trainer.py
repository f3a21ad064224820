"""What section 7.2 of the course does with a Trainer: token classification with BERT."""

import evaluate
import numpy as np
from datasets import ClassLabel, Sequence, load_dataset
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

checkpoint = "tiny-bert"
tag_names = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
raw = load_dataset("json", data_files={"train": "sentences.train.jsonl", "validation": "sentences.validation.jsonl"})
raw = raw.rename_columns({"words": "tokens", "tags": "ner_tags"})
raw = raw.cast_column("ner_tags", Sequence(ClassLabel(names=tag_names)))
names = raw["train"].features["ner_tags"].feature.names
tokenizer = AutoTokenizer.from_pretrained(checkpoint)


def spread(word_tags, word_ids):
    """Give each token its word's tag. Tags B-X are odd numbers, and a word's later tokens get I-X, the next number."""
    previous, widened = None, []
    for word in word_ids:
        if word is None:
            widened.append(-100)
        elif word != previous:
            widened.append(word_tags[word])
        else:
            tag = word_tags[word]
            widened.append(tag + 1 if tag % 2 else tag)
        previous = word
    return widened


def preprocess(rows):
    encoded = tokenizer(rows["tokens"], is_split_into_words=True, truncation=True)
    encoded["labels"] = [spread(tags, encoded.word_ids(index)) for index, tags in enumerate(rows["ner_tags"])]
    return encoded


encoded = raw.map(preprocess, batched=True, remove_columns=raw["train"].column_names)
metric = evaluate.load("seqeval")


def compute_metrics(outputs):
    scores, gold = outputs
    guesses = np.argmax(scores, axis=-1)
    gold_tags = [[names[each] for each in row if each != -100] for row in gold]
    guessed_tags = [
        [names[guess] for guess, each in zip(guess_row, row) if each != -100] for guess_row, row in zip(guesses, gold)
    ]
    found = metric.compute(predictions=guessed_tags, references=gold_tags)
    return {name: found[f"overall_{name}"] for name in ("precision", "recall", "f1", "accuracy")}


model = AutoModelForTokenClassification.from_pretrained(
    checkpoint, id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)}
)
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        "out",
        eval_strategy="epoch",
        save_strategy="epoch",
        learning_rate=2e-5,
        num_train_epochs=3,
        weight_decay=0.01,
        report_to="none",
    ),
    train_dataset=encoded["train"],
    eval_dataset=encoded["validation"],
    data_collator=DataCollatorForTokenClassification(tokenizer=tokenizer),
    compute_metrics=compute_metrics,
    processing_class=tokenizer,
)
trainer.train()
