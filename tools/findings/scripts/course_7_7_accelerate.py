"""What section 7.7 of the course does with a loop of its own: question answering with BERT."""

from collections import defaultdict

import evaluate
import numpy as np
import torch
from accelerate import Accelerator
from datasets import load_dataset
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, default_data_collator, get_scheduler

checkpoint = "tiny-bert"
max_length, stride = 96, 32
raw = load_dataset("json", data_files={"train": "questions.train.jsonl", "validation": "questions.validation.jsonl"})
raw = raw.map(lambda row, index: {"id": str(index)}, with_indices=True)
tokenizer = AutoTokenizer.from_pretrained(checkpoint)


def windows(rows):
    return tokenizer(
        [question.strip() for question in rows["question"]],
        rows["context"],
        max_length=max_length,
        truncation="only_second",
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding="max_length",
    )


def preprocess_training(rows):
    encoded = windows(rows)
    offsets, owners = encoded.pop("offset_mapping"), encoded.pop("overflow_to_sample_mapping")
    starts, ends = [], []
    for index, spans in enumerate(offsets):
        answer = rows["answers"][owners[index]]
        first = answer["answer_start"][0]
        last = first + len(answer["text"][0])
        context = [place for place, part in enumerate(encoded.sequence_ids(index)) if part == 1]
        left, right = context[0], context[-1]
        if spans[left][0] > first or spans[right][1] < last:
            starts.append(0)
            ends.append(0)
            continue
        start = left
        while start <= right and spans[start][0] <= first:
            start += 1
        starts.append(start - 1)
        end = right
        while end >= left and spans[end][1] >= last:
            end -= 1
        ends.append(end + 1)
    encoded["start_positions"], encoded["end_positions"] = starts, ends
    return encoded


def preprocess_validation(rows):
    encoded = windows(rows)
    owners = encoded.pop("overflow_to_sample_mapping")
    for index, spans in enumerate(encoded["offset_mapping"]):
        parts = encoded.sequence_ids(index)
        encoded["offset_mapping"][index] = [span if part == 1 else None for span, part in zip(spans, parts)]
    encoded["example_id"] = [rows["id"][owner] for owner in owners]
    return encoded


columns = raw["train"].column_names
train = raw["train"].map(preprocess_training, batched=True, remove_columns=columns)
validation = raw["validation"].map(preprocess_validation, batched=True, remove_columns=columns)
metric = evaluate.load("squad")
n_best, longest = 20, 30


def compute_metrics(start_scores, end_scores, features, examples):
    by_example = defaultdict(list)
    for index, feature in enumerate(features):
        by_example[feature["example_id"]].append(index)
    predicted = []
    for example in examples:
        answers = []
        for index in by_example[example["id"]]:
            spans = features[index]["offset_mapping"]
            best_starts = np.argsort(start_scores[index])[: -n_best - 1 : -1].tolist()
            best_ends = np.argsort(end_scores[index])[: -n_best - 1 : -1].tolist()
            for start in best_starts:
                for end in best_ends:
                    if spans[start] is None or spans[end] is None or not 0 <= end - start < longest:
                        continue
                    text = example["context"][spans[start][0] : spans[end][1]]
                    answers.append((start_scores[index][start] + end_scores[index][end], text))
        predicted.append({"id": example["id"], "prediction_text": max(answers)[1] if answers else ""})
    gold = [{"id": example["id"], "answers": example["answers"]} for example in examples]
    return metric.compute(predictions=predicted, references=gold)


model = AutoModelForQuestionAnswering.from_pretrained(checkpoint)
train.set_format("torch")
inputs = validation.remove_columns(["example_id", "offset_mapping"])
inputs.set_format("torch")
train_loader = DataLoader(train, shuffle=True, collate_fn=default_data_collator, batch_size=8)
eval_loader = DataLoader(inputs, collate_fn=default_data_collator, batch_size=8)
optimizer = AdamW(model.parameters(), lr=2e-5)
accelerator = Accelerator()
model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)
epochs = 3
schedule = get_scheduler(
    "linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=epochs * len(train_loader)
)

for epoch in range(epochs):
    model.train()
    for batch in train_loader:
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    model.eval()
    start_scores, end_scores = [], []
    for batch in eval_loader:
        with torch.no_grad():
            outputs = model(**batch)
        start_scores.append(accelerator.gather(outputs.start_logits).cpu().numpy())
        end_scores.append(accelerator.gather(outputs.end_logits).cpu().numpy())
    start_scores = np.concatenate(start_scores)[: len(validation)]
    end_scores = np.concatenate(end_scores)[: len(validation)]
    print(epoch, compute_metrics(start_scores, end_scores, validation, raw["validation"]))
