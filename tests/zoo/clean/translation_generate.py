"""Translation with a Seq2SeqTrainer that generates in its evaluation, scored by sacrebleu."""

import numpy as np
import sacrebleu
from datasets import load_dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

tokenizer = AutoTokenizer.from_pretrained("tiny-t5")
model = AutoModelForSeq2SeqLM.from_pretrained("tiny-t5", dtype="float32")
pairs = load_dataset("json", data_files={"train": "translations.train.jsonl", "test": "translations.validation.jsonl"})


def preprocess(batch):
    inputs = tokenizer(["translate: " + text for text in batch["source"]], max_length=64, truncation=True)
    inputs["labels"] = tokenizer(text_target=batch["target"], max_length=64, truncation=True)["input_ids"]
    return inputs


pairs = pairs.map(preprocess, batched=True, remove_columns=pairs["train"].column_names)


def compute_metrics(eval_preds):
    preds, labels = eval_preds
    preds = np.where(preds != -100, preds, tokenizer.pad_token_id)
    labels = np.where(labels != -100, labels, tokenizer.pad_token_id)
    predicted = [text.strip() for text in tokenizer.batch_decode(preds, skip_special_tokens=True)]
    references = [text.strip() for text in tokenizer.batch_decode(labels, skip_special_tokens=True)]
    return {
        "bleu": round(sacrebleu.corpus_bleu(predicted, [references]).score, 4),
        "chrf": round(sacrebleu.corpus_chrf(predicted, [references]).score, 4),
        "gen_len": float(np.mean(np.count_nonzero(preds != tokenizer.pad_token_id, axis=1))),
    }


trainer = Seq2SeqTrainer(
    model=model,
    args=Seq2SeqTrainingArguments(
        output_dir="mt",
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        num_train_epochs=1,
        predict_with_generate=True,
        generation_max_length=40,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="bleu",
        report_to="none",
    ),
    train_dataset=pairs["train"],
    eval_dataset=pairs["test"],
    data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
)
trainer.train()
