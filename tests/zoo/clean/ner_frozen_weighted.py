"""Token classification with frozen lower layers and a loss with class weights, because O is so frequent."""

import torch
from datasets import load_dataset
from torch import nn
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

raw = load_dataset("json", data_files={"train": "sentences.train.jsonl", "validation": "sentences.validation.jsonl"})
names = ["O"] + sorted({tag for tags in raw["train"]["tags"] for tag in tags} - {"O"})
label2id = {name: i for i, name in enumerate(names)}
tokenizer = AutoTokenizer.from_pretrained("tiny-distilbert")


def encode(examples):
    encoded = tokenizer(examples["words"], is_split_into_words=True, truncation=True, max_length=128)
    encoded["labels"] = []
    for row, tags in enumerate(examples["tags"]):
        previous, labels = None, []
        for word in encoded.word_ids(row):
            labels.append(-100 if word is None or word == previous else label2id[tags[word]])
            previous = word
        encoded["labels"].append(labels)
    return encoded


data = raw.map(encode, batched=True, remove_columns=raw["train"].column_names)
model = AutoModelForTokenClassification.from_pretrained(
    "tiny-distilbert", id2label=dict(enumerate(names)), label2id=label2id, dtype="float32"
)
for parameter in model.distilbert.embeddings.parameters():
    parameter.requires_grad = False
for parameter in model.distilbert.transformer.layer[0].parameters():
    parameter.requires_grad = False
weights = torch.tensor([0.2] + [1.0] * (len(names) - 1))


class WeightedTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        outputs = model(**inputs)
        loss_fct = nn.CrossEntropyLoss(weight=weights.to(outputs.logits.device))
        loss = loss_fct(outputs.logits.view(-1, len(names)), inputs["labels"].view(-1))
        return (loss, outputs) if return_outputs else loss


trainer = WeightedTrainer(
    model=model,
    args=TrainingArguments(
        output_dir="out", num_train_epochs=3, per_device_train_batch_size=16, learning_rate=1e-3, report_to="none"
    ),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    data_collator=DataCollatorForTokenClassification(tokenizer),
    processing_class=tokenizer,
)
trainer.train()
