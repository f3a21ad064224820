"""Pre-training on texts with trl's SFTTrainer, packed into rows of 128 tokens."""

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

raw = load_dataset("json", data_files={"train": "documents.train.jsonl", "validation": "documents.validation.jsonl"})
tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
tokenizer.pad_token = tokenizer.eos_token
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained("tiny-gpt2"),
    args=SFTConfig(
        output_dir="out",
        per_device_train_batch_size=4,
        packing=True,
        packing_strategy="wrapped",
        max_length=128,
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
