"""What section 7.2 of the course does with a loop of its own: token classification with BERT."""

import evaluate
import torch
from accelerate import Accelerator
from datasets import ClassLabel, Sequence, load_dataset
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    get_scheduler,
)

checkpoint = "tiny-bert"
tag_names = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
raw = load_dataset("json", data_files={"train": "sentences.train.jsonl", "validation": "sentences.validation.jsonl"})
raw = raw.rename_columns({"words": "tokens", "tags": "ner_tags"})
raw = raw.cast_column("ner_tags", Sequence(ClassLabel(names=tag_names)))
names = raw["train"].features["ner_tags"].feature.names
tokenizer = AutoTokenizer.from_pretrained(checkpoint)


def spread(word_tags, word_ids):
    """Give each token its word's tag. Tags B-X are odd numbers, and a word's later tokens get I-X, the next number."""
    previous, widened = None, []
    for word in word_ids:
        if word is None:
            widened.append(-100)
        elif word != previous:
            widened.append(word_tags[word])
        else:
            tag = word_tags[word]
            widened.append(tag + 1 if tag % 2 else tag)
        previous = word
    return widened


def preprocess(rows):
    encoded = tokenizer(rows["tokens"], is_split_into_words=True, truncation=True)
    encoded["labels"] = [spread(tags, encoded.word_ids(index)) for index, tags in enumerate(rows["ner_tags"])]
    return encoded


encoded = raw.map(preprocess, batched=True, remove_columns=raw["train"].column_names)
metric = evaluate.load("seqeval")


collator = DataCollatorForTokenClassification(tokenizer=tokenizer)
train_loader = DataLoader(encoded["train"], shuffle=True, collate_fn=collator, batch_size=8)
eval_loader = DataLoader(encoded["validation"], collate_fn=collator, batch_size=8)
model = AutoModelForTokenClassification.from_pretrained(
    checkpoint, id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)}
)
optimizer = AdamW(model.parameters(), lr=2e-5)
accelerator = Accelerator()
model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)
epochs = 3
schedule = get_scheduler(
    "linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=epochs * len(train_loader)
)


def postprocess(guesses, gold):
    guesses, gold = guesses.detach().cpu().clone().numpy(), gold.detach().cpu().clone().numpy()
    gold_tags = [[names[each] for each in row if each != -100] for row in gold]
    guessed_tags = [
        [names[guess] for guess, each in zip(guess_row, row) if each != -100] for guess_row, row in zip(guesses, gold)
    ]
    return gold_tags, guessed_tags


for epoch in range(epochs):
    model.train()
    for batch in train_loader:
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    model.eval()
    for batch in eval_loader:
        with torch.no_grad():
            outputs = model(**batch)
        guesses = accelerator.pad_across_processes(outputs.logits.argmax(dim=-1), dim=1, pad_index=-100)
        gold = accelerator.pad_across_processes(batch["labels"], dim=1, pad_index=-100)
        # The course unpacks the pair in the other order.
        guessed_tags, gold_tags = postprocess(accelerator.gather(guesses), accelerator.gather(gold))
        metric.add_batch(predictions=guessed_tags, references=gold_tags)
    found = metric.compute()
    print(epoch, {name: found[f"overall_{name}"] for name in ("precision", "recall", "f1", "accuracy")})
