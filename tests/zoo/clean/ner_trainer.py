"""Token classification with a Trainer, as in the course: -100 on special tokens, labels on all subwords."""

import numpy as np
from datasets import load_dataset
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

checkpoint = "tiny-bert"
raw = load_dataset("json", data_files={"train": "sentences.train.jsonl", "validation": "sentences.validation.jsonl"})
names = sorted({tag for tags in raw["train"]["tags"] for tag in tags}, key=lambda tag: (tag != "O", tag[2:], tag))
label2id = {name: index for index, name in enumerate(names)}
tokenizer = AutoTokenizer.from_pretrained(checkpoint)


def align_labels_with_tokens(labels, word_ids):
    new_labels = []
    current_word = None
    for word_id in word_ids:
        if word_id is None:
            new_labels.append(-100)
        elif word_id != current_word:
            current_word = word_id
            new_labels.append(label2id[labels[word_id]])
        else:
            label = labels[word_id]
            if label.startswith("B-"):
                label = "I-" + label[2:]
            new_labels.append(label2id[label])
    return new_labels


def tokenize_and_align_labels(examples):
    tokenized = tokenizer(examples["words"], truncation=True, is_split_into_words=True)
    tokenized["labels"] = [
        align_labels_with_tokens(labels, tokenized.word_ids(i)) for i, labels in enumerate(examples["tags"])
    ]
    return tokenized


tokenized_datasets = raw.map(tokenize_and_align_labels, batched=True, remove_columns=raw["train"].column_names)
model = AutoModelForTokenClassification.from_pretrained(
    checkpoint, id2label=dict(enumerate(names)), label2id=label2id, dtype="float32"
)


def compute_metrics(eval_preds):
    logits, labels = eval_preds
    predictions = np.argmax(logits, axis=-1)
    true_labels = [[names[label] for label in row if label != -100] for row in labels]
    true_predictions = [
        [names[guess] for guess, label in zip(guesses, row) if label != -100]
        for guesses, row in zip(predictions, labels)
    ]
    return {
        "precision": precision_score(true_labels, true_predictions),
        "recall": recall_score(true_labels, true_predictions),
        "f1": f1_score(true_labels, true_predictions),
        "accuracy": accuracy_score(true_labels, true_predictions),
    }


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        learning_rate=2e-4,
        num_train_epochs=3,
        per_device_train_batch_size=8,
        weight_decay=0.01,
        report_to="none",
    ),
    train_dataset=tokenized_datasets["train"],
    eval_dataset=tokenized_datasets["validation"],
    data_collator=DataCollatorForTokenClassification(tokenizer),
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
)
trainer.train()
