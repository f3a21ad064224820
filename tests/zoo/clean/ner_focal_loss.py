"""NER on imbalanced tags with a focal loss of one's own, scored by a macro F1 over tokens."""

import json

import numpy as np
import torch.nn.functional as F
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from sklearn.metrics import f1_score
from torch import nn
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

label_list = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
model_checkpoint = "tiny-distilbert"


def load(path):
    rows = [json.loads(item) for item in open(path)]
    known = set(label_list)
    data = {
        "tokens": [r["words"] for r in rows],
        "ner_tags": [[t if t in known else "O" for t in r["tags"]] for r in rows],
    }
    return Dataset.from_dict(
        data,
        features=Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=label_list))}),
    )


train, dev = load("sentences.train.jsonl"), load("sentences.validation.jsonl")
tokenizer = AutoTokenizer.from_pretrained(model_checkpoint)


def tokenize_and_align_labels(examples, label_all_tokens=False):
    tokenized_inputs = tokenizer(examples["tokens"], truncation=True, is_split_into_words=True, max_length=64)
    labels = []
    for i, label in enumerate(examples["ner_tags"]):
        word_ids = tokenized_inputs.word_ids(batch_index=i)
        previous_word_idx = None
        label_ids = []
        for word_idx in word_ids:
            if word_idx is None:
                label_ids.append(-100)
            elif word_idx != previous_word_idx:
                label_ids.append(label[word_idx])
            else:
                label_ids.append(label[word_idx] if label_all_tokens else -100)
            previous_word_idx = word_idx
        labels.append(label_ids)
    tokenized_inputs["labels"] = labels
    return tokenized_inputs


class FocalLoss(nn.Module):
    def __init__(self, gamma=2.0, alpha=None, ignore_index=-100):
        super().__init__()
        self.gamma, self.alpha, self.ignore_index = gamma, alpha, ignore_index

    def forward(self, logits, target):
        keep = target != self.ignore_index
        logits, target = logits[keep], target[keep]
        log_p = F.log_softmax(logits, dim=-1)
        ce = F.nll_loss(log_p, target, weight=self.alpha, reduction="none")
        pt = log_p.gather(1, target.unsqueeze(1)).squeeze(1).exp()
        return ((1 - pt) ** self.gamma * ce).mean()


class FocalTrainer(Trainer):
    def __init__(self, *args, gamma=2.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_fct = FocalLoss(gamma)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs.get("logits")
        loss = self.loss_fct(logits.view(-1, self.model.config.num_labels), labels.view(-1))
        return (loss, outputs) if return_outputs else loss


def compute_metrics(p):
    predictions, labels = p
    predictions = np.argmax(predictions, axis=2)
    kept = labels != -100
    return {"macro_f1": f1_score(labels[kept], predictions[kept], average="macro", zero_division=0)}


tok_train = train.map(tokenize_and_align_labels, batched=True)
tok_dev = dev.map(tokenize_and_align_labels, batched=True)
model = AutoModelForTokenClassification.from_pretrained(
    model_checkpoint,
    num_labels=len(label_list),
    id2label=dict(enumerate(label_list)),
    label2id={item: i for i, item in enumerate(label_list)},
)
trainer = FocalTrainer(
    model=model,
    args=TrainingArguments(
        "focal",
        learning_rate=2e-5,
        per_device_train_batch_size=16,
        num_train_epochs=3,
        weight_decay=0.01,
        report_to="none",
    ),
    train_dataset=tok_train,
    eval_dataset=tok_dev,
    data_collator=DataCollatorForTokenClassification(tokenizer),
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
    gamma=1.5,
)
trainer.train()
