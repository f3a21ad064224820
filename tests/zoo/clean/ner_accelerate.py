"""Token classification with Accelerate, as in the course: a loop with postprocess and padding across processes."""

import numpy as np
import torch
from accelerate import Accelerator
from datasets import load_dataset
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from torch.optim import AdamW
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    get_scheduler,
    set_seed,
)

set_seed(42)
checkpoint = "tiny-bert"
raw_datasets = load_dataset(
    "json", data_files={"train": "sentences.train.jsonl", "validation": "sentences.validation.jsonl"}
)
label_names = ["O"] + sorted({tag for tags in raw_datasets["train"]["tags"] for tag in tags if tag != "O"})
id2label = dict(enumerate(label_names))
label2id = {name: index for index, name in id2label.items()}
tokenizer = AutoTokenizer.from_pretrained(checkpoint)


def align_labels_with_tokens(labels, word_ids):
    new_labels = []
    current_word = None
    for word_id in word_ids:
        if word_id != current_word:
            current_word = word_id
            new_labels.append(-100 if word_id is None else label2id[labels[word_id]])
        elif word_id is None:
            new_labels.append(-100)
        else:
            new_labels.append(label2id[labels[word_id].replace("B-", "I-")])
    return new_labels


def tokenize_and_align_labels(examples):
    tokenized_inputs = tokenizer(examples["words"], truncation=True, is_split_into_words=True)
    new_labels = []
    for i, labels in enumerate(examples["tags"]):
        new_labels.append(align_labels_with_tokens(labels, tokenized_inputs.word_ids(i)))
    tokenized_inputs["labels"] = new_labels
    return tokenized_inputs


tokenized_datasets = raw_datasets.map(
    tokenize_and_align_labels, batched=True, remove_columns=raw_datasets["train"].column_names
)
data_collator = DataCollatorForTokenClassification(tokenizer=tokenizer)
train_dataloader = DataLoader(tokenized_datasets["train"], shuffle=True, collate_fn=data_collator, batch_size=8)
eval_dataloader = DataLoader(tokenized_datasets["validation"], collate_fn=data_collator, batch_size=8)

model = AutoModelForTokenClassification.from_pretrained(checkpoint, id2label=id2label, label2id=label2id)
optimizer = AdamW(model.parameters(), lr=2e-5)
accelerator = Accelerator(cpu=True)
model, optimizer, train_dataloader, eval_dataloader = accelerator.prepare(
    model, optimizer, train_dataloader, eval_dataloader
)

num_train_epochs = 3
num_update_steps_per_epoch = len(train_dataloader)
num_training_steps = num_train_epochs * num_update_steps_per_epoch
lr_scheduler = get_scheduler("linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=num_training_steps)


def postprocess(predictions, labels):
    predictions = predictions.detach().cpu().clone().numpy()
    labels = labels.detach().cpu().clone().numpy()
    true_labels = [[label_names[label] for label in row if label != -100] for row in labels]
    true_predictions = [
        [label_names[guess] for guess, label in zip(prediction, row) if label != -100]
        for prediction, row in zip(predictions, labels)
    ]
    return true_labels, true_predictions


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
    all_labels, all_predictions, losses = [], [], []
    for batch in eval_dataloader:
        with torch.no_grad():
            outputs = model(**batch)
        predictions = outputs.logits.argmax(dim=-1)
        labels = batch["labels"]
        losses.append(accelerator.gather(outputs.loss).mean().item())

        # Necessary to pad predictions and labels for being gathered
        predictions = accelerator.pad_across_processes(predictions, dim=1, pad_index=-100)
        labels = accelerator.pad_across_processes(labels, dim=1, pad_index=-100)
        predictions_gathered = accelerator.gather_for_metrics(predictions)
        labels_gathered = accelerator.gather_for_metrics(labels)
        true_labels, true_predictions = postprocess(predictions_gathered, labels_gathered)
        all_labels.extend(true_labels)
        all_predictions.extend(true_predictions)
    results = {
        "precision": precision_score(all_labels, all_predictions, zero_division=0),
        "recall": recall_score(all_labels, all_predictions, zero_division=0),
        "f1": f1_score(all_labels, all_predictions, zero_division=0),
        "accuracy": accuracy_score(all_labels, all_predictions),
    }
    print(f"epoch {epoch}:", results, "loss:", np.mean(losses))

    # Save
    accelerator.wait_for_everyone()
    unwrapped_model = accelerator.unwrap_model(model)
    unwrapped_model.save_pretrained("bert-finetuned-ner", save_function=accelerator.save)
    if accelerator.is_main_process:
        tokenizer.save_pretrained("bert-finetuned-ner")
