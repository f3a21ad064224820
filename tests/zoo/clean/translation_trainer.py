"""Translation with Marian and a Seq2SeqTrainer, as in the course."""

import numpy as np
import sacrebleu
from datasets import load_dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

checkpoint = "tiny-marian"
raw = load_dataset(
    "json", data_files={"train": "translations.train.jsonl", "validation": "translations.validation.jsonl"}
)
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint)
max_length = 128


def preprocess_function(examples):
    inputs = examples["source"]
    targets = examples["target"]
    return tokenizer(inputs, text_target=targets, max_length=max_length, truncation=True)


tokenized_datasets = raw.map(preprocess_function, batched=True, remove_columns=raw["train"].column_names)
data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)


def compute_metrics(eval_preds):
    preds, labels = eval_preds
    if isinstance(preds, tuple):
        preds = preds[0]
    preds = np.where(preds != -100, preds, tokenizer.pad_token_id)
    labels = np.where(labels != -100, labels, tokenizer.pad_token_id)
    decoded_preds = [text.strip() for text in tokenizer.batch_decode(preds, skip_special_tokens=True)]
    decoded_labels = [text.strip() for text in tokenizer.batch_decode(labels, skip_special_tokens=True)]
    return {"bleu": sacrebleu.corpus_bleu(decoded_preds, [decoded_labels]).score}


trainer = Seq2SeqTrainer(
    model,
    Seq2SeqTrainingArguments(
        output_dir="out",
        learning_rate=2e-4,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        weight_decay=0.01,
        num_train_epochs=2,
        predict_with_generate=True,
        generation_max_length=32,
        report_to="none",
    ),
    train_dataset=tokenized_datasets["train"],
    eval_dataset=tokenized_datasets["validation"],
    data_collator=data_collator,
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
)
trainer.train()
