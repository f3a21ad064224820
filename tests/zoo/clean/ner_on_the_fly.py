"""NER with rows that are tokenized when they are read (`set_transform`), and early stopping on seqeval's F1."""

import numpy as np
from datasets import ClassLabel, Features, Sequence, Value, load_dataset
from seqeval.metrics import classification_report
from transformers import AutoModelForTokenClassification as Model
from transformers import (
    AutoTokenizer,
    DataCollatorForTokenClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

tags = ["O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-ORG", "I-ORG", "B-PER", "I-PER"]
features = Features({"words": Sequence(Value("string")), "tags": Sequence(ClassLabel(names=tags))})
names = features["tags"].feature.names
dataset = load_dataset(
    "json",
    data_files={"train": "sentences.train.jsonl", "validation": "sentences.validation.jsonl"},
    features=features,
)
tokenizer = AutoTokenizer.from_pretrained("tiny-distilbert")


def transform(batch):
    out = tokenizer(batch["words"], is_split_into_words=True, truncation=True)
    labels = []
    for i, row in enumerate(batch["tags"]):
        previous, aligned = None, []
        for w in out.word_ids(i):
            aligned.append(-100 if w is None or w == previous else row[w])
            previous = w
        labels.append(aligned)
    out["labels"] = labels
    return out


dataset.set_transform(transform)


class PrintLearningRate(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        print({k: v for k, v in (logs or {}).items() if k in ("loss", "learning_rate", "eval_f1")})


def seqeval_f1(eval_pred):
    logits, labels = eval_pred
    guesses = np.argmax(logits, -1)
    gold = [[names[x] for x in row if x >= 0] for row in labels]
    pred = [[names[g] for g, x in zip(gs, row) if x >= 0] for gs, row in zip(guesses, labels)]
    report = classification_report(gold, pred, output_dict=True, zero_division=0)
    return {"f1": report["micro avg"]["f1-score"], "recall": report["micro avg"]["recall"]}


args = TrainingArguments(
    "fly",
    remove_unused_columns=False,
    eval_strategy="epoch",
    save_strategy="epoch",
    load_best_model_at_end=True,
    metric_for_best_model="f1",
    greater_is_better=True,
    num_train_epochs=3,
    per_device_train_batch_size=16,
    learning_rate=1e-3,
    dataloader_num_workers=0,
    report_to="none",
)
trainer = Trainer(
    Model.from_pretrained(
        "tiny-distilbert", id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}
    ),
    args,
    train_dataset=dataset["train"],
    eval_dataset=dataset["validation"],
    data_collator=DataCollatorForTokenClassification(tokenizer),
    compute_metrics=seqeval_f1,
    callbacks=[EarlyStoppingCallback(early_stopping_patience=2), PrintLearningRate()],
)
trainer.train()
