"""Code generation: GPT-2 from a config, chunks of programs saved to disk, gradient checkpointing, accumulation."""

import os
from itertools import chain

from datasets import DatasetDict, load_dataset, load_from_disk
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, default_data_collator

CONTEXT = 64
PREPARED = "programs-tokenized"


def prepare(tokenizer) -> DatasetDict:
    """Tokenize once; later runs read the result."""
    if os.path.isdir(PREPARED):
        return load_from_disk(PREPARED)
    raw = load_dataset("json", data_files={s: f"programs.{s}.jsonl" for s in ("train", "validation")})

    def tokenize(rows):
        return {"ids": [ids + [tokenizer.eos_token_id] for ids in tokenizer(rows["code"])["input_ids"]]}

    def chunk(rows):
        stream = list(chain.from_iterable(rows["ids"]))
        pieces = [stream[i : i + CONTEXT] for i in range(0, len(stream) - CONTEXT + 1, CONTEXT)]
        return {"input_ids": pieces, "labels": [list(piece) for piece in pieces]}

    ready = raw.map(tokenize, batched=True, remove_columns="code").map(chunk, batched=True, remove_columns="ids")
    ready.save_to_disk(PREPARED)
    return load_from_disk(PREPARED)


if __name__ == "__main__":
    tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=False,
    )
    model = GPT2LMHeadModel(config)
    data = prepare(tokenizer)
    args = TrainingArguments(
        output_dir="code",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        max_steps=12,
        learning_rate=5e-4,
        lr_scheduler_type="cosine",
        warmup_steps=2,
        weight_decay=0.1,
        logging_steps=4,
        save_strategy="no",
        report_to="none",
    )
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=default_data_collator,
    )
    trainer.train()
