"""A generator of token blocks as an IterableDataset, split over two workers, with a Trainer."""

import json
from typing import Iterator

import torch
from torch.utils.data import IterableDataset, get_worker_info
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments


class ConstantLengthDataset(IterableDataset):
    """Blocks of equal length from a file of JSON lines. Every worker reads its own lines."""

    def __init__(self, tokenizer, path: str, seq_length: int = 96, infinite: bool = False):
        super().__init__()
        self.tokenizer = tokenizer
        self.path = path
        self.seq_length = seq_length
        self.infinite = infinite

    def _lines(self) -> Iterator[str]:
        info = get_worker_info()
        number, of = (info.id, info.num_workers) if info else (0, 1)
        while True:
            with open(self.path, encoding="utf-8") as lines:
                for i, line in enumerate(lines):
                    if i % of == number:
                        yield json.loads(line)["code"]
            if not self.infinite:
                return

    def __iter__(self) -> Iterator[dict]:
        buffer: list[int] = []
        for text in self._lines():
            buffer += self.tokenizer(text)["input_ids"] + [self.tokenizer.eos_token_id]
            while len(buffer) >= self.seq_length:
                block, buffer = buffer[: self.seq_length], buffer[self.seq_length :]
                yield {"input_ids": torch.tensor(block), "labels": torch.tensor(block)}


if __name__ == "__main__":
    tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
    model = AutoModelForCausalLM.from_pretrained("tiny-gpt2")
    train_dataset = ConstantLengthDataset(tokenizer, "programs.train.jsonl", infinite=True)
    eval_dataset = ConstantLengthDataset(tokenizer, "programs.validation.jsonl")
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir="blocks",
            max_steps=10,
            per_device_train_batch_size=6,
            dataloader_num_workers=2,
            learning_rate=3e-4,
            bf16=False,
            fp16=torch.cuda.is_available(),
            optim="adamw_torch",
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
    )
    trainer.train()
