"""What section 7.7 of the course does with a Trainer: question answering with BERT."""

from collections import defaultdict

import evaluate
import numpy as np
from datasets import load_dataset
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, Trainer, TrainingArguments

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
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        "out",
        eval_strategy="no",
        save_strategy="epoch",
        learning_rate=2e-5,
        num_train_epochs=3,
        weight_decay=0.01,
        report_to="none",
    ),
    train_dataset=train,
    eval_dataset=validation,
    processing_class=tokenizer,
)
trainer.train()
scores, _, _ = trainer.predict(validation)
print(compute_metrics(*scores, validation, raw["validation"]))
