"""The order of rows grouped by length, twice with one seed: the second time, one random number was drawn before."""

import torch
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainingArguments, set_seed

size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
model = BertForTokenClassification(BertConfig(vocab_size=50, **size))
rows = [{"input_ids": list(range(length)), "labels": [0] * length} for length in range(1, 17)]
arguments = TrainingArguments(
    "out", report_to="none", per_device_train_batch_size=2, train_sampling_strategy="group_by_length", seed=1
)
trainer = Trainer(model, arguments, train_dataset=rows)
for drawn in (0, 1):
    set_seed(1)
    torch.rand(drawn)
    print(f"{drawn} numbers drawn before: rows {list(trainer.get_train_dataloader().batch_sampler)[:4]} ...")
