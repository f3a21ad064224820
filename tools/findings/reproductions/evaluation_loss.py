"""The loss that Trainer reports for the same model and rows, evaluated in batches of 1, 2 and 4."""

import torch
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainingArguments

size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
torch.manual_seed(0)
model = BertForTokenClassification(BertConfig(vocab_size=50, **size))
rows = []
for count in (1, 2, 4, 8):
    labels = torch.full((8,), -100)
    labels[:count] = int(count == 1)
    rows.append({"input_ids": torch.randint(50, (8,)), "labels": labels})
for batch_size in (1, 2, 4):
    arguments = TrainingArguments("out", report_to="none", per_device_eval_batch_size=batch_size)
    loss = Trainer(model, arguments, eval_dataset=rows).evaluate()["eval_loss"]
    print(f"batches of {batch_size}: eval_loss {loss:.4f}")
