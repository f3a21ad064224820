"""Train a small BERT from nothing: made from a config, no dropout, fixed-size blocks of text, whole run in main()."""

from itertools import chain

import torch
from datasets import load_dataset
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizerFast,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

BLOCK = 128


def get_model(tokenizer):
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=BLOCK,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    return BertForMaskedLM(config)


def group_texts(examples):
    concatenated = {k: list(chain(*examples[k])) for k in examples.keys()}
    total_length = len(concatenated["input_ids"]) // BLOCK * BLOCK
    return {k: [t[i : i + BLOCK] for i in range(0, total_length, BLOCK)] for k, t in concatenated.items()}


def main():
    tokenizer = BertTokenizerFast.from_pretrained("tiny-bert")
    dataset = load_dataset("json", data_files={"train": "documents.train.jsonl", "valid": "documents.validation.jsonl"})

    def tokenize(examples):
        return tokenizer(examples["text"], return_special_tokens_mask=True, return_token_type_ids=False)

    dataset = dataset.map(tokenize, batched=True, remove_columns=["text"]).map(group_texts, batched=True)
    torch.manual_seed(11)
    trainer = Trainer(
        model=get_model(tokenizer),
        args=TrainingArguments(
            output_dir="scratch",
            num_train_epochs=2,
            per_device_train_batch_size=16,
            learning_rate=1e-3,
            weight_decay=0.01,
            adam_beta2=0.98,
            fp16=False,
            bf16=False,
            save_total_limit=1,
            report_to="none",
        ),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.2),
        train_dataset=dataset["train"],
        eval_dataset=dataset["valid"],
    )
    trainer.train()


if __name__ == "__main__":
    main()
