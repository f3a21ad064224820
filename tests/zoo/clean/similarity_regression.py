"""A number for each pair of sentences, as in STS-B: mean squared error, and the best checkpoint by its lowest."""

import numpy as np
from datasets import load_dataset
from scipy.stats import pearsonr, spearmanr
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
)


def main():
    raw_datasets = load_dataset(
        "json", data_files={"train": "translations.train.jsonl", "validation": "translations.validation.jsonl"}
    )
    tokenizer = AutoTokenizer.from_pretrained("tiny-bert", use_fast=True)
    model = AutoModelForSequenceClassification.from_pretrained("tiny-bert", num_labels=1)
    model.config.problem_type = "regression"

    def preprocess_function(examples):
        result = tokenizer(examples["source"], examples["target"], padding=False, max_length=128, truncation=True)
        result["label"] = [
            min(len(s), len(t)) / max(len(s), len(t)) * 5.0 for s, t in zip(examples["source"], examples["target"])
        ]
        return result

    raw_datasets = raw_datasets.map(preprocess_function, batched=True)

    def compute_metrics(p):
        preds = p.predictions[0] if isinstance(p.predictions, tuple) else p.predictions
        preds = np.squeeze(preds)
        return {
            "mse": ((preds - p.label_ids) ** 2).mean().item(),
            "pearson": pearsonr(preds, p.label_ids)[0],
            "spearmanr": spearmanr(preds, p.label_ids)[0],
        }

    training_args = TrainingArguments(
        output_dir="sts",
        eval_strategy="steps",
        eval_steps=10,
        save_steps=10,
        per_device_train_batch_size=16,
        num_train_epochs=2,
        load_best_model_at_end=True,
        metric_for_best_model="mse",
        greater_is_better=False,
        lr_scheduler_type="cosine",
        warmup_steps=5,
        report_to="none",
    )
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=raw_datasets["train"],
        eval_dataset=raw_datasets["validation"],
        compute_metrics=compute_metrics,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=3)],
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
