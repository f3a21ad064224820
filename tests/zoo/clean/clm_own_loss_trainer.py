"""Causal LM on blocks of one length, with a loss of its own that shifts once."""

from datasets import load_dataset
from torch.nn import CrossEntropyLoss
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, default_data_collator

block = 64
tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
model = AutoModelForCausalLM.from_pretrained("tiny-gpt2", dtype="float32")
raw = load_dataset("json", data_files={"train": "documents.train.jsonl", "validation": "documents.validation.jsonl"})


def tokenize(examples):
    return tokenizer([text + tokenizer.eos_token for text in examples["text"]])


def group_texts(examples):
    joined = {name: sum(examples[name], []) for name in examples}
    total = len(joined["input_ids"]) // block * block
    grouped = {name: [ids[i : i + block] for i in range(0, total, block)] for name, ids in joined.items()}
    grouped["labels"] = [list(ids) for ids in grouped["input_ids"]]
    return grouped


tokenized = raw.map(tokenize, batched=True, remove_columns=["text"])
data = tokenized.map(group_texts, batched=True)


class OwnLossTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        shift_logits = outputs.logits[..., :-1, :].contiguous()
        shift_labels = labels[..., 1:].contiguous()
        loss = CrossEntropyLoss()(shift_logits.view(-1, shift_logits.size(-1)), shift_labels.view(-1))
        return (loss, outputs) if return_outputs else loss


trainer = OwnLossTrainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        num_train_epochs=2,
        per_device_train_batch_size=8,
        learning_rate=5e-4,
        lr_scheduler_type="cosine",
        warmup_steps=5,
        max_grad_norm=0.5,
        report_to="none",
    ),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    data_collator=default_data_collator,
    processing_class=tokenizer,
)
trainer.train()
