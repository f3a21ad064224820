"""LoRA written by hand: GPT-2's attention projections get low-rank additions, everything else is frozen."""

import math

import torch
import torch.nn as nn
from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)
from transformers.pytorch_utils import Conv1D

RANK = 4
ALPHA = 8


class LoRA(nn.Module):
    """y = base(x) + (alpha / rank) * x A B, with B zero at the start, so that training begins at the base model."""

    def __init__(self, base: Conv1D, rank: int = RANK, alpha: int = ALPHA, dropout: float = 0.05):
        super().__init__()
        fan_in, fan_out = base.weight.shape
        self.base = base
        self.a = nn.Parameter(torch.empty(fan_in, rank))
        self.b = nn.Parameter(torch.zeros(rank, fan_out))
        self.dropout = nn.Dropout(dropout)
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.scale * (self.dropout(x) @ self.a @ self.b)


def add_lora(model: nn.Module) -> nn.Module:
    for p in model.parameters():
        p.requires_grad_(False)
    for block in model.transformer.h:
        block.attn.c_attn = LoRA(block.attn.c_attn)
        block.attn.c_proj = LoRA(block.attn.c_proj)
    return model


tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
tokenizer.add_special_tokens({"pad_token": "<pad>"})
model = AutoModelForCausalLM.from_pretrained("tiny-gpt2")
model.resize_token_embeddings(len(tokenizer))
model.config.pad_token_id = tokenizer.pad_token_id
model = add_lora(model)
trainable = [name for name, p in model.named_parameters() if p.requires_grad]
assert all(name.endswith((".a", ".b")) for name in trainable), trainable

texts = load_dataset("json", data_files={"train": "documents.train.jsonl", "validation": "documents.validation.jsonl"})


def tokenize(batch):
    return tokenizer([text + tokenizer.eos_token for text in batch["text"]], truncation=True, max_length=128)


tokenized = texts.map(tokenize, batched=True, remove_columns="text")
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="lora",
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        num_train_epochs=1,
        weight_decay=0.0,
        save_strategy="no",
        report_to="none",
    ),
    train_dataset=tokenized["train"],
    eval_dataset=tokenized["validation"],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
trainer.train()
print(trainer.evaluate())
