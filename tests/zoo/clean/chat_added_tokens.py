"""Instruction tuning on headlines: new chat tokens, resized embeddings, and a loss on the answers only."""

import logging
from typing import Dict, List, Sequence

import torch
import transformers
from datasets import load_dataset
from transformers import Trainer, TrainingArguments

IGNORE_INDEX = -100
USER, ASSISTANT, PAD = "<|user|>", "<|assistant|>", "<|pad|>"
logger = logging.getLogger(__name__)


def smart_tokenizer_and_embedding_resize(tokens: Dict, tokenizer, model):
    """New rows of the embedding start as the mean of the old ones."""
    added = tokenizer.add_special_tokens(tokens)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if added > 0:
        table = model.get_input_embeddings().weight.data
        table[-added:] = table[:-added].mean(dim=0, keepdim=True)
    logger.info("added %d tokens", added)


def preprocess(row: Dict, tokenizer, max_length: int = 200) -> Dict:
    prompt = tokenizer(f"{USER}Write a headline: {row['document']}{ASSISTANT}")["input_ids"]
    answer = tokenizer(row["summary"])["input_ids"] + [tokenizer.eos_token_id]
    prompt = prompt[: max_length - len(answer)]
    return {"input_ids": prompt + answer, "labels": [IGNORE_INDEX] * len(prompt) + answer}


class DataCollatorForSupervisedDataset:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, instances: Sequence[Dict]) -> Dict[str, torch.Tensor]:
        def pad(rows: List[List[int]], value: int) -> torch.Tensor:
            return torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(row) for row in rows], batch_first=True, padding_value=value
            )

        input_ids = pad([each["input_ids"] for each in instances], self.tokenizer.pad_token_id)
        return dict(
            input_ids=input_ids,
            labels=pad([each["labels"] for each in instances], IGNORE_INDEX),
            attention_mask=input_ids.ne(self.tokenizer.pad_token_id),
        )


def train():
    tokenizer = transformers.AutoTokenizer.from_pretrained("tiny-gpt2", padding_side="right")
    model = transformers.AutoModelForCausalLM.from_pretrained("tiny-gpt2")
    smart_tokenizer_and_embedding_resize(
        {"pad_token": PAD, "additional_special_tokens": [USER, ASSISTANT]}, tokenizer, model
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    data = load_dataset("json", data_files={"train": "headlines.train.jsonl", "eval": "headlines.validation.jsonl"})
    data = data.map(preprocess, fn_kwargs={"tokenizer": tokenizer}, remove_columns=["document", "summary"])
    args = TrainingArguments(
        output_dir="chat",
        num_train_epochs=1,
        per_device_train_batch_size=8,
        learning_rate=5e-4,
        warmup_steps=3,
        lr_scheduler_type="cosine",
        save_strategy="no",
        report_to="none",
    )
    trainer = Trainer(
        model=model,
        processing_class=tokenizer,
        args=args,
        train_dataset=data["train"],
        eval_dataset=data["eval"],
        data_collator=DataCollatorForSupervisedDataset(tokenizer),
    )
    trainer.train()


if __name__ == "__main__":
    train()
