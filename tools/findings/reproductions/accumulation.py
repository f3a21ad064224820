"""One optimizer step on the same 8 rows, cut into 1 batch and into 4: a Trainer should move the weights equally."""

import copy

import torch
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainingArguments

size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
config = BertConfig(vocab_size=50, hidden_dropout_prob=0, attention_probs_dropout_prob=0, **size)
torch.manual_seed(0)
model = BertForTokenClassification(config)
rows = [{"input_ids": torch.randint(50, (16,)), "labels": torch.randint(2, (16,))} for _ in range(8)]


def step(batch_size, accumulation):
    trained = copy.deepcopy(model)
    arguments = TrainingArguments(
        "out",
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        optim="sgd",
        learning_rate=0.01,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        save_strategy="no",
        report_to="none",
    )
    Trainer(trained, arguments, train_dataset=rows).train()
    return sum(float((a - b).norm()) ** 2 for a, b in zip(trained.parameters(), model.parameters())) ** 0.5


print(f"step of 4 batches of 2 rows / step of 1 batch of 8 rows: {step(2, 4) / step(8, 1):.3f}")
