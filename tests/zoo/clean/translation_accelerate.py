"""Translation with Accelerate, as in the course: generate, pad_across_processes, gather_for_metrics, BLEU."""

import numpy as np
import sacrebleu
import torch
from accelerate import Accelerator
from datasets import load_dataset
from torch.optim import AdamW
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq, get_scheduler

torch.manual_seed(0)
model_checkpoint = "tiny-marian"
max_length = 64
raw_datasets = load_dataset(
    "json", data_files={"train": "translations.train.jsonl", "validation": "translations.validation.jsonl"}
)
tokenizer = AutoTokenizer.from_pretrained(model_checkpoint)
model = AutoModelForSeq2SeqLM.from_pretrained(model_checkpoint)


def preprocess_function(examples):
    return tokenizer(
        [text + tokenizer.eos_token for text in examples["source"]],
        text_target=[text + tokenizer.eos_token for text in examples["target"]],
        max_length=max_length,
        truncation=True,
    )


tokenized_datasets = raw_datasets.map(
    preprocess_function, batched=True, remove_columns=raw_datasets["train"].column_names
)
tokenized_datasets.set_format("torch")
data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)
train_dataloader = DataLoader(tokenized_datasets["train"], shuffle=True, collate_fn=data_collator, batch_size=8)
eval_dataloader = DataLoader(tokenized_datasets["validation"], collate_fn=data_collator, batch_size=8)

optimizer = AdamW(model.parameters(), lr=2e-4)
accelerator = Accelerator(cpu=True)
model, optimizer, train_dataloader, eval_dataloader = accelerator.prepare(
    model, optimizer, train_dataloader, eval_dataloader
)
num_train_epochs = 3
num_update_steps_per_epoch = len(train_dataloader)
num_training_steps = num_train_epochs * num_update_steps_per_epoch
lr_scheduler = get_scheduler("linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=num_training_steps)


def postprocess(predictions, labels):
    predictions = predictions.cpu().numpy()
    labels = labels.cpu().numpy()
    predictions = np.where(predictions != -100, predictions, tokenizer.pad_token_id)
    decoded_preds = tokenizer.batch_decode(predictions, skip_special_tokens=True)
    # Replace -100 in the labels as we can't decode them
    labels = np.where(labels != -100, labels, tokenizer.pad_token_id)
    decoded_labels = tokenizer.batch_decode(labels, skip_special_tokens=True)
    return [pred.strip() for pred in decoded_preds], [label.strip() for label in decoded_labels]


progress_bar = tqdm(range(num_training_steps))
for epoch in range(num_train_epochs):
    # Training
    model.train()
    for batch in train_dataloader:
        outputs = model(**batch)
        loss = outputs.loss
        accelerator.backward(loss)
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()
        progress_bar.update(1)

    # Evaluation
    model.eval()
    all_predictions, all_references = [], []
    for batch in tqdm(eval_dataloader):
        with torch.no_grad():
            generated_tokens = accelerator.unwrap_model(model).generate(
                batch["input_ids"], attention_mask=batch["attention_mask"], max_length=max_length, num_beams=2
            )
        labels = batch["labels"]
        # Necessary to pad predictions and labels for being gathered
        generated_tokens = accelerator.pad_across_processes(generated_tokens, dim=1, pad_index=tokenizer.pad_token_id)
        labels = accelerator.pad_across_processes(labels, dim=1, pad_index=-100)
        predictions_gathered = accelerator.gather_for_metrics(generated_tokens)
        labels_gathered = accelerator.gather_for_metrics(labels)
        decoded_preds, decoded_labels = postprocess(predictions_gathered, labels_gathered)
        all_predictions.extend(decoded_preds)
        all_references.extend(decoded_labels)
    results = sacrebleu.corpus_bleu(all_predictions, [all_references])
    print(f"epoch {epoch}, BLEU score: {results.score:.2f}")

    # Save
    accelerator.wait_for_everyone()
    unwrapped_model = accelerator.unwrap_model(model)
    unwrapped_model.save_pretrained("marian-finetuned", save_function=accelerator.save)
    if accelerator.is_main_process:
        tokenizer.save_pretrained("marian-finetuned")
