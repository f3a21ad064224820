"""Sentence embeddings with SentenceTransformerTrainer: pairs of a question and its context."""

from datasets import load_dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.losses import MultipleNegativesRankingLoss

raw = load_dataset("json", data_files={"train": "questions.train.jsonl", "validation": "questions.validation.jsonl"})
pairs = raw.rename_columns({"question": "anchor", "context": "positive"}).remove_columns(["answers"])
pairs = pairs.select_columns(["anchor", "positive"])
model = SentenceTransformer("tiny-bert")
trainer = SentenceTransformerTrainer(
    model=model,
    args=SentenceTransformerTrainingArguments(
        output_dir="out",
        num_train_epochs=1,
        per_device_train_batch_size=16,
        report_to="none",
    ),
    train_dataset=pairs["train"],
    eval_dataset=pairs["validation"],
    loss=MultipleNegativesRankingLoss(model),
)
trainer.train()
