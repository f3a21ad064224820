"""The loss that Trainer reports for GPT-2, against the mean over the tokens that are predicted."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=16)).eval()
ids = torch.randint(50, (4, 8))
rows = [{"input_ids": row, "labels": row} for row in ids]
trainer = Trainer(model, TrainingArguments("out", report_to="none", per_device_eval_batch_size=4), eval_dataset=rows)
with torch.no_grad():
    logits = model(ids).logits
mean = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 50), ids[:, 1:].reshape(-1))
print(f"eval_loss {trainer.evaluate()['eval_loss']:.4f}, mean over the 28 predicted tokens {mean:.4f}; 28 / 32 = 0.875")
