"""Question answering; the windows are made by a module beside this script, and a search runs several trainings."""

from pathlib import Path

import spans
from datasets import load_dataset
from transformers import (
    DistilBertForQuestionAnswering,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

ROOT = Path(".")
GRID = [{"learning_rate": 1e-3, "warmup_steps": 0}, {"learning_rate": 3e-4, "warmup_steps": 5}]


def datasets_for(tokenizer):
    data = load_dataset(
        "json",
        data_files={
            "train": str(ROOT / "questions.train.jsonl"),
            "validation": str(ROOT / "questions.validation.jsonl"),
        },
    )
    make = spans.Windows(tokenizer)
    return {
        name: split.map(make, batched=True, remove_columns=split.column_names, desc=f"windows of {name}")
        for name, split in data.items()
    }


def objective(params, data, number):
    """Train once and return the validation loss."""
    model = DistilBertForQuestionAnswering.from_pretrained("tiny-distilbert")
    arguments = TrainingArguments(
        output_dir=f"trial-{number}",
        num_train_epochs=1,
        per_device_train_batch_size=24,
        per_device_eval_batch_size=32,
        save_strategy="no",
        report_to="none",
        **params,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=default_data_collator,
    )
    trainer.train()
    return trainer.evaluate()["eval_loss"]


def search():
    tokenizer = PreTrainedTokenizerFast.from_pretrained("tiny-distilbert")
    data = datasets_for(tokenizer)
    losses = {i: objective(params, data, i) for i, params in enumerate(GRID)}
    best = min(losses, key=losses.get)
    print("best settings:", GRID[best], "loss", losses[best])


if __name__ == "__main__":
    search()
