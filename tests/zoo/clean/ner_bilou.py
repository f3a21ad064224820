"""NER with BILOU tags, converted from IOB2 word by word and then spread over the subwords."""

import numpy as np
from datasets import load_dataset
from seqeval.metrics import f1_score
from seqeval.scheme import BILOU
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)


def iob2_to_bilou(tags):
    out = []
    for i, tag in enumerate(tags):
        if tag == "O":
            out.append(tag)
            continue
        prefix, kind = tag.split("-", 1)
        goes_on = i + 1 < len(tags) and tags[i + 1] == "I-" + kind
        if prefix == "B":
            out.append(("B-" if goes_on else "U-") + kind)
        else:
            out.append(("I-" if goes_on else "L-") + kind)
    return out


KINDS = ["PER", "ORG", "LOC", "MISC"]
NAMES = ["O"] + [f"{p}-{k}" for k in KINDS for p in "BILU"]
IDS = {n: i for i, n in enumerate(NAMES)}


def subword_tags(tags, word_ids):
    """Spread the tags of words over their subwords, so that the subwords are BILOU again."""
    result = []
    for place, word in enumerate(word_ids):
        if word is None:
            result.append(-100)
            continue
        tag = tags[word]
        if tag == "O":
            result.append(IDS["O"])
            continue
        prefix, kind = tag.split("-")
        first = place == 0 or word_ids[place - 1] != word
        last = place + 1 == len(word_ids) or word_ids[place + 1] != word
        opens = prefix in "BU" and first
        closes = prefix in "LU" and last
        result.append(IDS[("U" if opens and closes else "B" if opens else "L" if closes else "I") + "-" + kind])
    return result


tokenizer = AutoTokenizer.from_pretrained("tiny-bert")


def prepare(rows):
    enc = tokenizer(rows["words"], is_split_into_words=True)
    enc["labels"] = [subword_tags(iob2_to_bilou(tags), enc.word_ids(i)) for i, tags in enumerate(rows["tags"])]
    return enc


raw = load_dataset("json", data_files={"train": "sentences.train.jsonl", "test": "sentences.validation.jsonl"})
ready = raw.map(prepare, batched=True, batch_size=50, remove_columns=["words", "tags"])


def score(p):
    guess = np.argmax(p.predictions, axis=2)
    keep = p.label_ids != -100
    gold = [[NAMES[x] for x in row[k]] for row, k in zip(p.label_ids, keep)]
    pred = [[NAMES[x] for x in row[k]] for row, k in zip(guess, keep)]
    return {"f1": f1_score(gold, pred, mode="strict", scheme=BILOU, zero_division=0)}


model = AutoModelForTokenClassification.from_pretrained("tiny-bert", id2label=dict(enumerate(NAMES)), label2id=IDS)
trainer = Trainer(
    model,
    TrainingArguments("bilou", num_train_epochs=1, learning_rate=5e-4, eval_strategy="epoch", report_to="none"),
    train_dataset=ready["train"],
    eval_dataset=ready["test"],
    data_collator=DataCollatorForTokenClassification(tokenizer),
    compute_metrics=score,
)
trainer.train()
