"""T5 from English to French with a Seq2SeqTrainer, optimizer and schedule made here, and BLEU of generated text."""

import argparse

import numpy as np
import sacrebleu
import torch
from datasets import load_dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    get_cosine_schedule_with_warmup,
)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_name_or_path", default="tiny-t5")
    parser.add_argument("--max_source_length", type=int, default=384)
    parser.add_argument("--max_target_length", type=int, default=384)
    parser.add_argument("--num_train_epochs", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=10)
    return parser.parse_args(argv)


def make_optimizers(model, steps, lr=1e-3, decay=0.01):
    with_decay = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    without = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": with_decay, "weight_decay": decay}, {"params": without, "weight_decay": 0.0}], lr=lr
    )
    return optimizer, get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)


def main():
    args = parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(args.model_name_or_path)
    splits = load_dataset(
        "json", data_files={"train": "translations.train.jsonl", "validation": "translations.validation.jsonl"}
    )

    def preprocess_function(examples):
        sources = ["translate English to French: " + text for text in examples["source"]]
        model_inputs = tokenizer(sources, max_length=args.max_source_length, truncation=True)
        labels = tokenizer(text_target=examples["target"], max_length=args.max_target_length, truncation=True)
        model_inputs["labels"] = labels["input_ids"]
        return model_inputs

    tokenized = splits.map(preprocess_function, batched=True, remove_columns=["source", "target"])

    def compute_metrics(eval_preds):
        preds, labels = eval_preds
        preds = np.where(preds != -100, preds, tokenizer.pad_token_id)
        labels = np.where(labels != -100, labels, tokenizer.pad_token_id)
        guesses = [text.strip() for text in tokenizer.batch_decode(preds, skip_special_tokens=True)]
        gold = [text.strip() for text in tokenizer.batch_decode(labels, skip_special_tokens=True)]
        return {"bleu": sacrebleu.corpus_bleu(guesses, [gold]).score}

    steps = args.num_train_epochs * -(-len(tokenized["train"]) // args.batch_size)
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir="t5",
            per_device_train_batch_size=args.batch_size,
            num_train_epochs=args.num_train_epochs,
            predict_with_generate=True,
            generation_max_length=64,
            report_to="none",
        ),
        train_dataset=tokenized["train"],
        eval_dataset=tokenized["validation"],
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
        optimizers=make_optimizers(model, steps),
    )
    trainer.train()
    print(trainer.evaluate())


if __name__ == "__main__":
    main()
