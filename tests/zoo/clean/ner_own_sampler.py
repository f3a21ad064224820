"""Token classification with a sampler, a training step and a prediction step of one's own."""

import numpy as np
import torch
from datasets import load_dataset
from seqeval.metrics import classification_report, f1_score
from torch.utils.data import DataLoader, Sampler
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

raw = load_dataset("json", data_files={"train": "sentences.train.jsonl", "validation": "sentences.validation.jsonl"})
tags = ["O"] + sorted({tag for row in raw["train"]["tags"] for tag in row} - {"O"})
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")


def encode(batch):
    out = tokenizer(batch["words"], truncation=True, is_split_into_words=True)
    out["labels"] = []
    for i, row in enumerate(batch["tags"]):
        words = out.word_ids(i)
        out["labels"].append(
            [
                -100 if word is None or (at and word == words[at - 1]) else tags.index(row[word])
                for at, word in enumerate(words)
            ]
        )
    return out


raw = raw.map(encode, batched=True, remove_columns=["words", "tags"])


class BucketSampler(Sampler):
    """Shuffles the rows, and sorts every hundred of them by length."""

    def __init__(self, lengths, seed):
        self.lengths = lengths
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.lengths)

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        for start in range(0, len(order), 100):
            yield from sorted(order[start : start + 100], key=lambda index: self.lengths[index])


class BucketTrainer(Trainer):
    def get_train_dataloader(self):
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            sampler=BucketSampler(lengths, self.args.seed),
            collate_fn=self.data_collator,
        )
        return self.accelerator.prepare(loader)

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        inputs = self._prepare_inputs(inputs)
        loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        model.eval()
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            outputs = model(**inputs)
        return outputs.loss, outputs.logits, inputs["labels"]


def compute_metrics(p):
    guesses = np.argmax(p.predictions, axis=2)
    gold, found = [], []
    for row, labels in zip(guesses, p.label_ids):
        keep = labels != -100
        gold.append([tags[label] for label in labels[keep]])
        found.append([tags[guess] for guess in row[keep]])
    report = classification_report(gold, found, output_dict=True, zero_division=0)
    return {
        "f1": f1_score(gold, found),
        "precision": report["micro avg"]["precision"],
        "recall": report["micro avg"]["recall"],
        "token_accuracy": float(np.mean([a == b for x, y in zip(gold, found) for a, b in zip(x, y)])),
    }


trainer = BucketTrainer(
    model=AutoModelForTokenClassification.from_pretrained(
        "tiny-bert", id2label=dict(enumerate(tags)), label2id={tag: i for i, tag in enumerate(tags)}, dtype="float32"
    ),
    args=TrainingArguments(
        output_dir="out",
        learning_rate=5e-4,
        num_train_epochs=4,
        per_device_train_batch_size=8,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        report_to="none",
    ),
    train_dataset=raw["train"],
    eval_dataset=raw["validation"],
    data_collator=DataCollatorForTokenClassification(tokenizer),
    compute_metrics=compute_metrics,
)
trainer.train()
