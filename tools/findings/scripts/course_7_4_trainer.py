"""What section 7.4 of the course does with a Seq2SeqTrainer: translation with a Marian model."""

import evaluate
import numpy as np
from datasets import load_dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

checkpoint = "tiny-marian"
max_length = 128
raw = load_dataset("json", data_files="translations.train.jsonl")["train"]
raw = raw.map(
    lambda row: {"translation": {"en": row["source"], "fr": row["target"]}}, remove_columns=["source", "target"]
)
split = raw.train_test_split(train_size=0.9, seed=20)
split["validation"] = split.pop("test")
tokenizer = AutoTokenizer.from_pretrained(checkpoint, return_tensors="pt")


def preprocess(rows):
    sources = [pair["en"] for pair in rows["translation"]]
    targets = [pair["fr"] for pair in rows["translation"]]
    return tokenizer(sources, text_target=targets, max_length=max_length, truncation=True)


encoded = split.map(preprocess, batched=True, remove_columns=split["train"].column_names)
model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint)
collator = DataCollatorForSeq2Seq(tokenizer, model=model)
metric = evaluate.load("sacrebleu")


def compute_metrics(outputs):
    generated, gold = outputs
    if isinstance(generated, tuple):
        generated = generated[0]
    guesses = tokenizer.batch_decode(generated, skip_special_tokens=True)
    gold = np.where(gold != -100, gold, tokenizer.pad_token_id)
    references = tokenizer.batch_decode(gold, skip_special_tokens=True)
    found = metric.compute(
        predictions=[text.strip() for text in guesses], references=[[text.strip()] for text in references]
    )
    return {"bleu": found["score"]}


trainer = Seq2SeqTrainer(
    model,
    Seq2SeqTrainingArguments(
        "out",
        eval_strategy="no",
        save_strategy="epoch",
        learning_rate=2e-5,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        weight_decay=0.01,
        save_total_limit=3,
        num_train_epochs=3,
        predict_with_generate=True,
        report_to="none",
    ),
    train_dataset=encoded["train"],
    eval_dataset=encoded["validation"],
    data_collator=collator,
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
)
trainer.train()
