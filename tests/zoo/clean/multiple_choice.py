"""Which of four headlines fits? The collator flattens the choices, pads them, and folds them again, as for SWAG."""

import random
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np
import torch
from datasets import load_dataset
from transformers import AutoModelForMultipleChoice, AutoTokenizer, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.utils import PaddingStrategy

ds = load_dataset("json", data_files={"train": "headlines.train.jsonl", "validation": "headlines.validation.jsonl"})
rng = random.Random(3)


def add_choices(example, idx, pool):
    label = rng.randrange(4)
    endings = [pool[(idx * 7 + k * 13 + 1) % len(pool)] for k in range(4)]
    endings[label] = example["summary"]
    return {"sent": example["document"], **{f"ending{k}": endings[k] for k in range(4)}, "label": label}


ds = {
    k: d.map(
        add_choices, with_indices=True, fn_kwargs={"pool": list(d["summary"])}, remove_columns=["document", "summary"]
    )
    for k, d in ds.items()
}
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
ending_names = ["ending0", "ending1", "ending2", "ending3"]


def preprocess_function(examples):
    first_sentences = [[context] * 4 for context in examples["sent"]]
    second_sentences = [[f"{examples[end][i]}" for end in ending_names] for i in range(len(examples["sent"]))]
    first_sentences = sum(first_sentences, [])
    second_sentences = sum(second_sentences, [])
    tokenized_examples = tokenizer(first_sentences, second_sentences, truncation=True, max_length=96)
    return {k: [v[i : i + 4] for i in range(0, len(v), 4)] for k, v in tokenized_examples.items()}


encoded = {k: d.map(preprocess_function, batched=True) for k, d in ds.items()}


@dataclass
class DataCollatorForMultipleChoice:
    tokenizer: PreTrainedTokenizerBase
    padding: Union[bool, str, PaddingStrategy] = True
    max_length: Optional[int] = None
    pad_to_multiple_of: Optional[int] = None

    def __call__(self, features):
        label_name = "label" if "label" in features[0].keys() else "labels"
        labels = [feature.pop(label_name) for feature in features]
        batch_size = len(features)
        num_choices = len(features[0]["input_ids"])
        flattened_features = [
            [{k: v[i] for k, v in feature.items()} for i in range(num_choices)] for feature in features
        ]
        flattened_features = sum(flattened_features, [])
        batch = self.tokenizer.pad(
            flattened_features,
            padding=self.padding,
            max_length=self.max_length,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors="pt",
        )
        batch = {k: v.view(batch_size, num_choices, -1) for k, v in batch.items()}
        batch["labels"] = torch.tensor(labels, dtype=torch.int64)
        return batch


def compute_metrics(eval_predictions):
    predictions, label_ids = eval_predictions
    preds = np.argmax(predictions, axis=1)
    return {"accuracy": (preds == label_ids).astype(np.float32).mean().item()}


trainer = Trainer(
    AutoModelForMultipleChoice.from_pretrained("tiny-bert"),
    TrainingArguments(
        "swag",
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        num_train_epochs=3,
        weight_decay=0.01,
        learning_rate=5e-5,
        report_to="none",
    ),
    train_dataset=encoded["train"],
    eval_dataset=encoded["validation"],
    processing_class=tokenizer,
    data_collator=DataCollatorForMultipleChoice(tokenizer),
    compute_metrics=compute_metrics,
)
trainer.train()
