"""ELECTRA: a generator fills masks by sampling, and a discriminator finds what was replaced; both in one module."""

import torch
from datasets import load_dataset
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    ElectraConfig,
    ElectraForPreTraining,
    Trainer,
    TrainingArguments,
)

tok = AutoTokenizer.from_pretrained("tiny-bert")


class Electra(nn.Module):
    def __init__(self, generator, discriminator, weight=50.0):
        super().__init__()
        self.generator, self.discriminator, self.weight = generator, discriminator, weight

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, labels=None):
        masked = labels != -100
        gen = self.generator(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        with torch.no_grad():
            probs = gen.logits.softmax(-1)
            sampled = torch.multinomial(probs[masked], 1).squeeze(-1)
        fake = input_ids.clone()
        fake[masked] = sampled
        original = torch.where(masked, labels, input_ids)
        is_fake = (fake != original).long()
        disc = self.discriminator(input_ids=fake, attention_mask=attention_mask, labels=is_fake)
        return {"loss": gen.loss + self.weight * disc.loss, "disc_logits": disc.logits}


disc = ElectraForPreTraining(
    ElectraConfig(
        vocab_size=len(tok),
        hidden_size=32,
        embedding_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
)
data = load_dataset("json", data_files={"train": "documents.train.jsonl", "test": "documents.validation.jsonl"})
data = data.map(lambda b: tok(b["text"], truncation=True, max_length=96), batched=True, remove_columns=["text"])
trainer = Trainer(
    model=Electra(AutoModelForMaskedLM.from_pretrained("tiny-bert"), disc),
    args=TrainingArguments(
        "electra", per_device_train_batch_size=8, max_steps=50, report_to="none", save_strategy="no"
    ),
    train_dataset=data["train"],
    eval_dataset=data["test"],
    data_collator=DataCollatorForLanguageModeling(
        tok, mlm_probability=0.25, mask_replace_prob=1.0, random_replace_prob=0.0
    ),
)
trainer.train()
