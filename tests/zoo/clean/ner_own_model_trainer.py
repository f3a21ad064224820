"""Token classification with a module of one's own around an encoder, and an optimizer and a schedule passed in."""

import torch
from datasets import load_dataset
from torch import nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

epochs, batch_size, accumulation = 4, 4, 4
raw = load_dataset("json", data_files={"train": "sentences.train.jsonl", "validation": "sentences.validation.jsonl"})
names = sorted({tag for tags in raw["train"]["tags"] for tag in tags}, key=lambda tag: (tag != "O", tag[2:], tag))
label2id = {name: i for i, name in enumerate(names)}
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")


def encode(examples):
    encoded = tokenizer(examples["words"], is_split_into_words=True, truncation=True)
    encoded["labels"] = []
    for row, tags in enumerate(examples["tags"]):
        previous, labels = None, []
        for word in encoded.word_ids(row):
            labels.append(-100 if word is None or word == previous else label2id[tags[word]])
            previous = word
        encoded["labels"].append(labels)
    return encoded


data = raw.map(encode, batched=True, remove_columns=raw["train"].column_names)


class Tagger(nn.Module):
    def __init__(self, checkpoint, num_labels):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(checkpoint, dtype="float32")
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(self.encoder.config.hidden_size, num_labels)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, labels=None):
        hidden = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        logits = self.classifier(self.dropout(hidden))
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.view(-1, logits.size(-1)), labels.view(-1))
        return {"loss": loss, "logits": logits}


model = Tagger("tiny-bert", len(names))
no_decay = ("bias", "LayerNorm.weight")
optimizer = torch.optim.AdamW(
    [
        {
            "params": [p for n, p in model.named_parameters() if not any(part in n for part in no_decay)],
            "weight_decay": 0.01,
        },
        {
            "params": [p for n, p in model.named_parameters() if any(part in n for part in no_decay)],
            "weight_decay": 0.0,
        },
    ],
    lr=1e-3,
)
steps = epochs * -(-len(data["train"]) // (batch_size * accumulation))
scheduler = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=steps // 10, num_training_steps=steps)

trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        report_to="none",
    ),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    data_collator=DataCollatorForTokenClassification(tokenizer),
    processing_class=tokenizer,
    optimizers=(optimizer, scheduler),
)
trainer.train()
