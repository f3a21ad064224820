"""Masked LM with a loss of its own that divides by the labels of the whole step, under gradient accumulation."""

from datasets import load_dataset
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
model = AutoModelForMaskedLM.from_pretrained("tiny-bert", dtype="float32")
raw = load_dataset("json", data_files={"train": "documents.train.jsonl", "validation": "documents.validation.jsonl"})


def tokenize(examples):
    return tokenizer(examples["text"], truncation=True, max_length=64, return_special_tokens_mask=True)


data = raw.map(tokenize, batched=True, remove_columns=["text"])


class MaskedTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs.logits.view(-1, model.config.vocab_size)
        if num_items_in_batch is None:
            loss = cross_entropy(logits, labels.view(-1))
        else:
            loss = cross_entropy(logits, labels.view(-1), reduction="sum") / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


trainer = MaskedTrainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        num_train_epochs=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=8,
        learning_rate=5e-4,
        weight_decay=0.01,
        warmup_steps=3,
        report_to="none",
    ),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
    processing_class=tokenizer,
)
trainer.train()
