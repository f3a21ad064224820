"""NER where O is common: a Trainer subclass weights the cross-entropy by class. Every subword has its word's label."""

from collections import Counter

import torch
from datasets import load_dataset
from torch import nn
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

LABELS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
ID = {label: number for number, label in enumerate(LABELS)}


class WeightedTrainer(Trainer):
    def __init__(self, *args, class_weights, **kwargs):
        super().__init__(*args, **kwargs)
        self.class_weights = class_weights

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss_fct = nn.CrossEntropyLoss(weight=self.class_weights.to(outputs.logits.device))
        loss = loss_fct(outputs.logits.view(-1, len(LABELS)), labels.view(-1))
        return (loss, outputs) if return_outputs else loss


def encode(batch):
    encoded = tokenizer(batch["words"], is_split_into_words=True, truncation=True, max_length=96)
    encoded["labels"] = []
    for row, tags in enumerate(batch["tags"]):
        ids, last = [], None
        for word in encoded.word_ids(row):
            if word is None:
                ids.append(-100)
            else:
                tag = tags[word]
                ids.append(ID["I" + tag[1:]] if word == last and tag[0] == "B" else ID[tag])
            last = word
        encoded["labels"].append(ids)
    return encoded


data = load_dataset("json", data_files={"train": "sentences.train.jsonl", "test": "sentences.validation.jsonl"})
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
data = data.map(encode, batched=True, remove_columns=["words", "tags"])

counts = Counter(label for row in data["train"]["labels"] for label in row if label != -100)
weights = torch.tensor([sum(counts.values()) / (len(LABELS) * max(counts[i], 1)) for i in range(len(LABELS))])
weights = weights.clamp(max=10.0)

trainer = WeightedTrainer(
    AutoModelForTokenClassification.from_pretrained(
        "tiny-bert", num_labels=len(LABELS), id2label=dict(enumerate(LABELS)), label2id=ID
    ),
    TrainingArguments("ner-weighted", num_train_epochs=2, per_device_train_batch_size=16, report_to=[]),
    train_dataset=data["train"],
    eval_dataset=data["test"],
    data_collator=DataCollatorForTokenClassification(tokenizer=tokenizer),
    processing_class=tokenizer,
    class_weights=weights,
)

if __name__ == "__main__":
    trainer.train()
    trainer.save_model()
