"""A causal language model on two interleaved sources, with a padding token of its own and two evaluation sets."""

from datasets import concatenate_datasets, interleave_datasets, load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

tok = AutoTokenizer.from_pretrained("tiny-gpt2")
tok.add_special_tokens({"pad_token": "<|pad|>"})
model = AutoModelForCausalLM.from_pretrained("tiny-gpt2")
model.resize_token_embeddings(len(tok), mean_resizing=False)
model.config.pad_token_id = tok.pad_token_id


def docs(split):
    d = load_dataset("json", data_files=f"documents.{split}.jsonl", split="train")
    return d.map(lambda ex: tok(ex["text"] + tok.eos_token, truncation=True, max_length=96), remove_columns=["text"])


def code(split):
    d = load_dataset("json", data_files=f"programs.{split}.jsonl", split="train").rename_column("code", "text")
    return d.map(lambda ex: tok(ex["text"] + tok.eos_token, truncation=True, max_length=96), remove_columns=["text"])


train = interleave_datasets(
    [docs("train"), code("train")], probabilities=[0.7, 0.3], seed=42, stopping_strategy="first_exhausted"
)
val = concatenate_datasets([docs("validation"), code("validation")])
args = TrainingArguments(
    output_dir="mix",
    per_device_train_batch_size=8,
    num_train_epochs=2,
    report_to="none",
    lr_scheduler_type="constant_with_warmup",
    warmup_steps=5,
    max_grad_norm=0.5,
    logging_steps=1,
    gradient_checkpointing=True,
)
model.config.use_cache = False
trainer = Trainer(
    model, args, DataCollatorForLanguageModeling(tok, mlm=False), train, {"docs": docs("validation"), "all": val}
)
trainer.train()
