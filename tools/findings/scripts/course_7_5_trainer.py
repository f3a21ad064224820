"""What section 7.5 of the course does with a Seq2SeqTrainer: summarization with a T5 model.

The course splits sentences with NLTK's punkt, which is data of its own. Here a full stop ends a sentence.
"""

import re

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

checkpoint = "tiny-t5"
max_source, max_target = 256, 30
raw = load_dataset("json", data_files={"train": "headlines.train.jsonl", "validation": "headlines.validation.jsonl"})
raw = raw.rename_columns({"document": "review_body", "summary": "review_title"})
tokenizer = AutoTokenizer.from_pretrained(checkpoint)


def preprocess(rows):
    encoded = tokenizer(rows["review_body"], max_length=max_source, truncation=True)
    targets = tokenizer(rows["review_title"], max_length=max_target, truncation=True)
    encoded["labels"] = targets["input_ids"]
    return encoded


def sentences(text):
    return re.split(r"(?<=[.!?]) ", text.strip())


encoded = raw.map(preprocess, batched=True)
metric = evaluate.load("rouge")
model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint)
collator = DataCollatorForSeq2Seq(tokenizer, model=model)
encoded = encoded.remove_columns(raw["train"].column_names)


def compute_metrics(outputs):
    generated, gold = outputs
    guesses = tokenizer.batch_decode(generated, skip_special_tokens=True)
    gold = np.where(gold != -100, gold, tokenizer.pad_token_id)
    references = tokenizer.batch_decode(gold, skip_special_tokens=True)
    # The course reads `.mid.fmeasure` of each score, which current versions of evaluate do not have.
    found = metric.compute(
        predictions=["\n".join(sentences(text)) for text in guesses],
        references=["\n".join(sentences(text)) for text in references],
        use_stemmer=True,
    )
    return {name: round(value * 100, 4) for name, value in found.items()}


batch_size = 8
trainer = Seq2SeqTrainer(
    model,
    Seq2SeqTrainingArguments(
        output_dir="out",
        eval_strategy="epoch",
        learning_rate=5.6e-5,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        weight_decay=0.01,
        save_total_limit=3,
        num_train_epochs=8,
        predict_with_generate=True,
        logging_steps=len(encoded["train"]) // batch_size,
        report_to="none",
    ),
    train_dataset=encoded["train"],
    eval_dataset=encoded["validation"],
    data_collator=collator,
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
)
trainer.train()
