"""Question answering with unanswerable questions, after run_qa.py: dynamic padding, the [CLS] token for no answer."""

import json

from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

set_seed(1)
MODEL, MAX_SEQ_LENGTH, DOC_STRIDE = "tiny-distilbert", 64, 24


def read_squad(path):
    """Every fourth question is put to another context, which does not answer it."""
    rows = [json.loads(line) for line in open(path)]
    for number, row in enumerate(rows):
        row["id"] = f"q{number}"
        if number % 4 == 3:
            other = rows[(number + 7) % len(rows)]["context"]
            row.update(context=other, answers={"text": [], "answer_start": []})
    return Dataset.from_list(rows)


tokenizer = AutoTokenizer.from_pretrained(MODEL)
pad_on_right = tokenizer.padding_side == "right"


def prepare_train_features(examples):
    examples["question"] = [q.lstrip() for q in examples["question"]]
    tokenized_examples = tokenizer(
        examples["question" if pad_on_right else "context"],
        examples["context" if pad_on_right else "question"],
        truncation="only_second" if pad_on_right else "only_first",
        max_length=MAX_SEQ_LENGTH,
        stride=DOC_STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=False,
    )
    sample_mapping = tokenized_examples.pop("overflow_to_sample_mapping")
    offset_mapping = tokenized_examples.pop("offset_mapping")
    tokenized_examples["start_positions"] = []
    tokenized_examples["end_positions"] = []
    for i, offsets in enumerate(offset_mapping):
        input_ids = tokenized_examples["input_ids"][i]
        cls_index = input_ids.index(tokenizer.cls_token_id)
        sequence_ids = tokenized_examples.sequence_ids(i)
        context_index = 1 if pad_on_right else 0
        answers = examples["answers"][sample_mapping[i]]
        if len(answers["answer_start"]) == 0:
            tokenized_examples["start_positions"].append(cls_index)
            tokenized_examples["end_positions"].append(cls_index)
            continue
        start_char = answers["answer_start"][0]
        end_char = start_char + len(answers["text"][0])
        inside = [
            k
            for k, (s, e) in enumerate(offsets)
            if sequence_ids[k] == context_index and s < end_char and e > start_char
        ]
        whole = inside and offsets[inside[0]][0] <= start_char and offsets[inside[-1]][1] >= end_char
        tokenized_examples["start_positions"].append(inside[0] if whole else cls_index)
        tokenized_examples["end_positions"].append(inside[-1] if whole else cls_index)
    return tokenized_examples


raw_train, raw_dev = read_squad("questions.train.jsonl"), read_squad("questions.validation.jsonl")
train_dataset = raw_train.map(prepare_train_features, batched=True, remove_columns=raw_train.column_names)
train_dataset = train_dataset.shuffle(seed=7)
eval_dataset = raw_dev.map(prepare_train_features, batched=True, remove_columns=raw_dev.column_names)

trainer = Trainer(
    model=AutoModelForQuestionAnswering.from_pretrained(MODEL, dtype="float32"),
    args=TrainingArguments(output_dir="out", per_device_train_batch_size=12, report_to="none", seed=1),
    train_dataset=train_dataset,
    eval_dataset=eval_dataset,
    processing_class=tokenizer,
    data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=None),
)
trainer.train()
