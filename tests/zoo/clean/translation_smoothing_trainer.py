"""Translation with label smoothing in a loss of its own, which leaves padding out."""

from datasets import load_dataset
from torch.nn.functional import log_softmax
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

tokenizer = AutoTokenizer.from_pretrained("tiny-marian")
model = AutoModelForSeq2SeqLM.from_pretrained("tiny-marian", dtype="float32")
raw = load_dataset(
    "json", data_files={"train": "translations.train.jsonl", "validation": "translations.validation.jsonl"}
)


def preprocess(examples):
    sources = [text + tokenizer.eos_token for text in examples["source"]]
    targets = [text + tokenizer.eos_token for text in examples["target"]]
    encoded = tokenizer(sources, max_length=128, truncation=True)
    encoded["labels"] = tokenizer(text_target=targets, max_length=128, truncation=True)["input_ids"]
    return encoded


data = raw.map(preprocess, batched=True, remove_columns=raw["train"].column_names)


class SmoothedTrainer(Seq2SeqTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logp = log_softmax(outputs.logits, dim=-1)
        ignored = labels.eq(-100)
        nll = -logp.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        nll = nll.masked_fill(ignored, 0.0)
        smooth = -logp.mean(dim=-1)
        smooth = smooth.masked_fill(ignored, 0.0)
        epsilon = self.args.label_smoothing_factor
        loss = ((1 - epsilon) * nll + epsilon * smooth).sum() / (~ignored).sum()
        return (loss, outputs) if return_outputs else loss


trainer = SmoothedTrainer(
    model=model,
    args=Seq2SeqTrainingArguments(
        output_dir="out",
        num_train_epochs=2,
        per_device_train_batch_size=8,
        learning_rate=5e-4,
        label_smoothing_factor=0.1,
        predict_with_generate=True,
        report_to="none",
    ),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
    processing_class=tokenizer,
)
trainer.train()
