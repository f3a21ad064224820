"""Token classification after run_ner.py: only the first token of a word is labelled, and entities are scored by it."""

import numpy as np
from datasets import load_dataset
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

data = load_dataset("json", data_files="sentences.train.jsonl", split="train").train_test_split(0.2, seed=3)
label_list = sorted(set(tag for row in data["train"]["tags"] for tag in row))
label_to_id = {label: i for i, label in enumerate(label_list)}
config = AutoConfig.from_pretrained("tiny-distilbert", num_labels=len(label_list))
config.label2id = label_to_id
config.id2label = {i: label for label, i in label_to_id.items()}
tokenizer = AutoTokenizer.from_pretrained("tiny-distilbert")
model = AutoModelForTokenClassification.from_pretrained("tiny-distilbert", config=config, dtype="float32")
label_all_tokens = False
b_to_i_label = [
    label_list.index(label.replace("B-", "I-"))
    if label.startswith("B-") and label.replace("B-", "I-") in label_list
    else idx
    for idx, label in enumerate(label_list)
]


def tokenize_and_align_labels(examples):
    tokenized_inputs = tokenizer(
        examples["words"], padding=False, truncation=True, max_length=64, is_split_into_words=True
    )
    labels = []
    for i, label in enumerate(examples["tags"]):
        word_ids = tokenized_inputs.word_ids(batch_index=i)
        previous_word_idx = None
        label_ids = []
        for word_idx in word_ids:
            if word_idx is None:
                label_ids.append(-100)
            elif word_idx != previous_word_idx:
                label_ids.append(label_to_id[label[word_idx]])
            else:
                if label_all_tokens:
                    label_ids.append(b_to_i_label[label_to_id[label[word_idx]]])
                else:
                    label_ids.append(-100)
            previous_word_idx = word_idx
        labels.append(label_ids)
    tokenized_inputs["labels"] = labels
    return tokenized_inputs


train_dataset = data["train"].map(tokenize_and_align_labels, batched=True, batch_size=50)
eval_dataset = data["test"].map(tokenize_and_align_labels, batched=True)


def compute_metrics(p):
    from seqeval.metrics import f1_score

    predictions, labels = p
    predictions = np.argmax(predictions, axis=2)
    true_predictions = [
        [label_list[p] for (p, gold) in zip(prediction, label) if gold != -100]
        for prediction, label in zip(predictions, labels)
    ]
    true_labels = [[label_list[gold] for gold in label if gold != -100] for label in labels]
    return {"f1": f1_score(true_labels, true_predictions)}


trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="out", per_device_train_batch_size=8, eval_strategy="epoch", report_to="none"),
    train_dataset=train_dataset.shuffle(seed=42),
    eval_dataset=eval_dataset,
    processing_class=tokenizer,
    data_collator=DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=8),
    compute_metrics=compute_metrics,
)
trainer.train()
