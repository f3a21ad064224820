"""What section 7.6 of the course does with a Trainer: a causal language model of code, from scratch."""

from datasets import load_dataset
from transformers import (
    AutoConfig,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

context_length = 128
raw = load_dataset("json", data_files={"train": "programs.train.jsonl", "valid": "programs.validation.jsonl"})
tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")


def tokenize(rows):
    """Cut each program into chunks, and drop the chunk that is not full."""
    encoded = tokenizer(
        rows["code"],
        truncation=True,
        max_length=context_length,
        return_overflowing_tokens=True,
        return_length=True,
    )
    full = [ids for ids, length in zip(encoded["input_ids"], encoded["length"]) if length == context_length]
    return {"input_ids": full}


encoded = raw.map(tokenize, batched=True, remove_columns=raw["train"].column_names)
config = AutoConfig.from_pretrained(
    "tiny-gpt2",
    vocab_size=len(tokenizer),
    n_ctx=context_length,
    bos_token_id=tokenizer.bos_token_id,
    eos_token_id=tokenizer.eos_token_id,
)
model = GPT2LMHeadModel(config)
tokenizer.pad_token = tokenizer.eos_token
trainer = Trainer(
    model=model,
    processing_class=tokenizer,
    args=TrainingArguments(
        output_dir="out",
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        eval_strategy="steps",
        eval_steps=5_000,
        logging_steps=5_000,
        gradient_accumulation_steps=8,
        num_train_epochs=1,
        weight_decay=0.1,
        warmup_steps=4,
        lr_scheduler_type="cosine",
        learning_rate=5e-4,
        save_steps=5_000,
        report_to="none",
    ),
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    train_dataset=encoded["train"],
    eval_dataset=encoded["valid"],
)
trainer.train()
