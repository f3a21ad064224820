"""Supervised fine-tuning with trl's SFTTrainer: prompts and completions, the loss on completions only."""

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

raw = load_dataset("json", data_files={"train": "questions.train.jsonl", "validation": "questions.validation.jsonl"})


def as_prompt(row):
    return {
        "prompt": f"{row['context']}\n{row['question']}\n",
        "completion": row["answers"]["text"][0],
    }


raw = raw.map(as_prompt, remove_columns=raw["train"].column_names)
tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
tokenizer.pad_token = tokenizer.eos_token
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained("tiny-gpt2"),
    args=SFTConfig(
        output_dir="out",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        max_length=256,
        num_train_epochs=1,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
    ),
    train_dataset=raw["train"],
    eval_dataset=raw["validation"],
    processing_class=tokenizer,
)
trainer.train()
