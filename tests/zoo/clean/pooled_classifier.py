"""How many entities has a sentence? The mean of a frozen encoder's tokens, and a head of one's own."""

from datasets import load_dataset
from torch import nn
from transformers import AutoModel, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput


def mean_pooling(token_embeddings, attention_mask):
    mask = attention_mask.unsqueeze(-1).float()
    return (token_embeddings * mask).sum(1) / mask.sum(1).clamp(min=1e-9)


class Classifier(nn.Module):
    def __init__(self, name, num_labels):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(name)
        for p in self.encoder.parameters():
            p.requires_grad = False
        self.head = nn.Sequential(
            nn.Linear(self.encoder.config.hidden_size, 64), nn.Tanh(), nn.Dropout(0.2), nn.Linear(64, num_labels)
        )
        self.loss_fn = nn.CrossEntropyLoss(label_smoothing=0.05)

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, labels=None):
        out = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        logits = self.head(mean_pooling(out.last_hidden_state, attention_mask))
        loss = self.loss_fn(logits, labels) if labels is not None else None
        return SequenceClassifierOutput(loss=loss, logits=logits)


tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
ds = load_dataset("json", data_files={"train": "sentences.train.jsonl", "validation": "sentences.validation.jsonl"})
ds = ds.map(
    lambda x: {
        **tokenizer(" ".join(x["words"]), truncation=True),
        "labels": min(2, sum(t.startswith("B-") for t in x["tags"])),
    },
    remove_columns=["words", "tags"],
)
trainer = Trainer(
    model=Classifier("tiny-bert", 3),
    args=TrainingArguments(
        "frozen", learning_rate=1e-3, per_device_train_batch_size=16, num_train_epochs=5, report_to="none"
    ),
    train_dataset=ds["train"].with_format("torch"),
    eval_dataset=ds["validation"].with_format("torch"),
    data_collator=DataCollatorWithPadding(tokenizer),
    compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
)
trainer.train()
