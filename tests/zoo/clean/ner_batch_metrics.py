"""Token classification with batch_eval_metrics, predictions reduced to class ids, and batches grouped by length."""

from datasets import load_dataset
from seqeval.metrics import f1_score, precision_score, recall_score
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

checkpoint = "tiny-distilbert"
data = load_dataset("json", data_files={"train": "sentences.train.jsonl", "validation": "sentences.validation.jsonl"})
label_list = sorted({tag for tags in data["train"]["tags"] for tag in tags})
label_to_id = {label: index for index, label in enumerate(label_list)}
tokenizer = AutoTokenizer.from_pretrained(checkpoint)


def tokenize(examples):
    encoded = tokenizer(examples["words"], truncation=True, max_length=64, is_split_into_words=True)
    encoded["labels"] = []
    for row, tags in enumerate(examples["tags"]):
        previous = None
        labels = []
        for word in encoded.word_ids(row):
            labels.append(-100 if word is None or word == previous else label_to_id[tags[word]])
            previous = word
        encoded["labels"].append(labels)
    return encoded


data = data.map(tokenize, batched=True, remove_columns=data["train"].column_names)


def preprocess_logits_for_metrics(logits, labels):
    return logits.argmax(dim=-1)


class EntityScores:
    """Collects the tags of all batches, and scores them after the last."""

    def __init__(self):
        self.true, self.predicted = [], []

    def __call__(self, eval_pred, compute_result=False):
        predictions, labels = eval_pred
        for guesses, gold in zip(predictions.tolist(), labels.tolist()):
            kept = [(guess, label) for guess, label in zip(guesses, gold) if label != -100]
            self.predicted.append([label_list[guess] for guess, _ in kept])
            self.true.append([label_list[label] for _, label in kept])
        if not compute_result:
            return None
        scores = {
            "precision": precision_score(self.true, self.predicted),
            "recall": recall_score(self.true, self.predicted),
            "f1": f1_score(self.true, self.predicted),
        }
        self.true, self.predicted = [], []
        return scores


grouping = (
    {"train_sampling_strategy": "group_by_length"}
    if "train_sampling_strategy" in TrainingArguments.__dataclass_fields__
    else {"group_by_length": True}
)
trainer = Trainer(
    model=AutoModelForTokenClassification.from_pretrained(
        checkpoint, id2label=dict(enumerate(label_list)), label2id=label_to_id, dtype="float32"
    ),
    args=TrainingArguments(
        output_dir="out",
        per_device_train_batch_size=16,
        per_device_eval_batch_size=16,
        num_train_epochs=2,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="f1",
        batch_eval_metrics=True,
        report_to="none",
        **grouping,
    ),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    data_collator=DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=8),
    processing_class=tokenizer,
    compute_metrics=EntityScores(),
    preprocess_logits_for_metrics=preprocess_logits_for_metrics,
)
trainer.train()
