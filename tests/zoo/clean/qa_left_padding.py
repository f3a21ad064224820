"""Question answering on a torch Dataset: contexts stand first and are padded at the left, [CLS] found in every row."""

import json

import torch
from torch.utils.data import Dataset
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, Trainer, TrainingArguments

tokenizer = AutoTokenizer.from_pretrained("tiny-bert", padding_side="left")


def load(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


class QADataset(Dataset):
    def __init__(self, examples, tokenizer, max_len=96):
        self.examples = examples
        self.tokenizer = tokenizer
        self.max_len = max_len

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, i):
        example = self.examples[i]
        encoding = self.tokenizer(
            example["context"],
            example["question"],
            truncation="only_first",
            max_length=self.max_len,
            padding="max_length",
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        sequence_ids = encoding.sequence_ids(0)
        offsets = encoding.pop("offset_mapping")[0].tolist()
        first = example["answers"]["answer_start"][0]
        last = first + len(example["answers"]["text"][0])
        start = end = encoding["input_ids"][0].tolist().index(self.tokenizer.cls_token_id)
        context = [k for k, which in enumerate(sequence_ids) if which == 0]
        if offsets[context[-1]][1] >= last:
            start = next(k for k in context if offsets[k][1] > first)
            end = next(k for k in reversed(context) if offsets[k][0] < last)
        item = {key: value.squeeze(0) for key, value in encoding.items()}
        item["start_positions"] = torch.tensor(start)
        item["end_positions"] = torch.tensor(end)
        return item


model = AutoModelForQuestionAnswering.from_pretrained("tiny-bert", dtype="float32")
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="out", per_device_train_batch_size=4, max_steps=20, report_to="none"),
    train_dataset=QADataset(load("questions.train.jsonl"), tokenizer),
    eval_dataset=QADataset(load("questions.validation.jsonl"), tokenizer),
)
trainer.train()
