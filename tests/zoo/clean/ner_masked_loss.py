"""NER with O at padding and special tokens, and a loss of one's own that counts the first token of each word only."""

import json

import torch
from torch.nn import CrossEntropyLoss
from torch.utils.data import Dataset
from transformers import AutoTokenizer, BertForTokenClassification, Trainer, TrainingArguments

tags = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")


class Sents(Dataset):
    def __init__(self, path, max_len=96):
        self.rows, self.max_len = [json.loads(item) for item in open(path)], max_len

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        enc = tokenizer(
            row["words"], is_split_into_words=True, truncation=True, max_length=self.max_len, padding="max_length"
        )
        words = enc.word_ids()
        labels = [0 if w is None else tags.index(row["tags"][w]) for w in words]
        valid = [int(w is not None and (k == 0 or words[k - 1] != w)) for k, w in enumerate(words)]
        return {
            "input_ids": torch.tensor(enc["input_ids"]),
            "attention_mask": torch.tensor(enc["attention_mask"]),
            "labels": torch.tensor(labels),
            "valid": torch.tensor(valid),
        }


class ActiveLossTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels, valid = inputs.pop("labels"), inputs.pop("valid")
        outputs = model(**inputs)
        active = valid.view(-1) == 1
        loss = CrossEntropyLoss()(outputs.logits.view(-1, len(tags))[active], labels.view(-1)[active])
        return (loss, outputs) if return_outputs else loss


model = BertForTokenClassification.from_pretrained(
    "tiny-bert", num_labels=len(tags), id2label=dict(enumerate(tags)), label2id={t: i for i, t in enumerate(tags)}
)
ActiveLossTrainer(
    model,
    TrainingArguments("active", per_device_train_batch_size=8, report_to="none", remove_unused_columns=False),
    train_dataset=Sents("sentences.train.jsonl"),
    eval_dataset=Sents("sentences.validation.jsonl"),
    processing_class=tokenizer,
).train()
