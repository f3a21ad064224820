"""Masked language modelling that masks whole words, with the collator of the course."""

import collections

import numpy as np
from datasets import load_dataset
from transformers import AutoModelForMaskedLM, AutoTokenizer, Trainer, TrainingArguments, default_data_collator

model_checkpoint = "tiny-bert"
model = AutoModelForMaskedLM.from_pretrained(model_checkpoint)
tokenizer = AutoTokenizer.from_pretrained(model_checkpoint)
raw_datasets = load_dataset(
    "json", data_files={"train": "documents.train.jsonl", "validation": "documents.validation.jsonl"}
)
chunk_size = 64
wwm_probability = 0.2


def tokenize_function(examples):
    result = tokenizer(examples["text"])
    result["word_ids"] = [result.word_ids(i) for i in range(len(result["input_ids"]))]
    return result


def group_texts(examples):
    concatenated = {k: sum(examples[k], []) for k in examples.keys()}
    total_length = len(concatenated["input_ids"]) // chunk_size * chunk_size
    result = {k: [t[i : i + chunk_size] for i in range(0, total_length, chunk_size)] for k, t in concatenated.items()}
    result["labels"] = result["input_ids"].copy()
    return result


def whole_word_masking_data_collator(features):
    masked = []
    for feature in features:
        feature = dict(feature)
        word_ids = feature.pop("word_ids")
        mapping = collections.defaultdict(list)
        current_word_index = -1
        current_word = None
        for idx, word_id in enumerate(word_ids):
            if word_id is not None:
                if word_id != current_word:
                    current_word = word_id
                    current_word_index += 1
                mapping[current_word_index].append(idx)
            else:
                current_word = None
        mask = np.random.binomial(1, wwm_probability, (len(mapping),))
        input_ids = list(feature["input_ids"])
        labels = feature["labels"]
        new_labels = [-100] * len(labels)
        for word_id in np.where(mask)[0]:
            for idx in mapping[word_id]:
                new_labels[idx] = labels[idx]
                input_ids[idx] = tokenizer.mask_token_id
        feature["input_ids"] = input_ids
        feature["labels"] = new_labels
        masked.append(feature)
    return default_data_collator(masked)


lm_datasets = raw_datasets.map(tokenize_function, batched=True, remove_columns=["text"])
lm_datasets = lm_datasets.map(group_texts, batched=True)
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        learning_rate=2e-4,
        per_device_train_batch_size=8,
        num_train_epochs=2,
        remove_unused_columns=False,
        report_to="none",
    ),
    train_dataset=lm_datasets["train"],
    eval_dataset=lm_datasets["validation"],
    data_collator=whole_word_masking_data_collator,
    processing_class=tokenizer,
)
trainer.train()
