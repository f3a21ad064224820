"""Code in the shape that people have it, right and wrong, for the tests of shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
from tokenizers import Tokenizer, models
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerFast,
)

make: Any = PreTrainedTokenizerFast
tokenizer = make(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")), pad_token="a")
label_names = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]
label2id = {name: id for id, name in enumerate(label_names)}


def by_parity(examples: Any) -> Any:
    """Align labels as the course does: it knows that odd ids begin an entity."""
    encoded = tokenizer(examples["tokens"], truncation=True, is_split_into_words=True)
    labels = []
    for row, tags in enumerate(examples["ner_tags"]):
        aligned, previous = [], None
        for word in encoded.word_ids(row):
            if word is None:
                aligned.append(-100)
            else:
                tag = tags[word]
                aligned.append(tag + 1 if word == previous and tag % 2 == 1 else tag)
            previous = word
        labels.append(aligned)
    encoded["labels"] = labels
    return encoded


def by_name(examples: Any) -> Any:
    """Align labels by their names, from a list and a dictionary in the module; columns have other names."""
    encoded = tokenizer(examples["words"], is_split_into_words=True)
    encoded["labels"] = []
    for row, tags in enumerate(examples["labels"]):
        previous, aligned = None, []
        for word in encoded.word_ids(row):
            name = "" if word is None else label_names[tags[word]]
            if word == previous and name.startswith("B-"):
                name = name.replace("B-", "I-", 1)
            aligned.append(-100 if word is None else label2id[name])
            previous = word
        encoded["labels"].append(aligned)
    return encoded


def first_only(examples: Any) -> Any:
    """Label the first token of each word."""
    encoded = tokenizer(examples["tokens"], is_split_into_words=True)
    encoded["labels"] = [
        [-100 if word is None or (at and ids[at - 1] == word) else tags[word] for at, word in enumerate(ids)]
        for ids, tags in ((encoded.word_ids(row), tags) for row, tags in enumerate(examples["ner_tags"]))
    ]
    return encoded


def of_the_first_row(examples: Any) -> Any:
    """The bug: every row has the word ids of the first one."""
    encoded = tokenizer(examples["tokens"], is_split_into_words=True)
    ids = encoded.word_ids(0)
    encoded["labels"] = [[-100 if word is None else tags[word] for word in ids] for tags in examples["ner_tags"]]
    return encoded


def shifted(examples: Any) -> Any:
    """The bug: special tokens are not counted, so every label stands one place early."""
    encoded = tokenizer(examples["tokens"], is_split_into_words=True)
    encoded["labels"] = []
    for row, tags in enumerate(examples["ner_tags"]):
        ids = encoded.word_ids(row)
        found = [tags[word] for word in ids if word is not None]
        encoded["labels"].append([*found, *[-100] * (len(ids) - len(found))])
    return encoded


collator = DataCollatorForTokenClassification(tokenizer)
seq2seq = DataCollatorForSeq2Seq(tokenizer)
causal = DataCollatorForLanguageModeling(tokenizer, mlm=False)


def zeros(features: Any) -> Any:
    """The bug: labels are padded with 0, the label O."""
    batch = tokenizer.pad([{"input_ids": each["input_ids"]} for each in features], return_tensors="np")
    width = batch["input_ids"].shape[1]
    left = tokenizer.padding_side == "left"
    rows = []
    for feature in features:
        fill = [0] * (width - len(feature["input_ids"]))
        own = feature.get("labels", [])
        rows.append([*fill, *own] if left else [*own, *fill])
    return {**batch, "labels": np.array(rows)} if "labels" in features[0] else dict(batch)


def compute_metrics(evaluated: Any) -> dict[str, float]:
    """Score entities with seqeval, as the course does."""
    from seqeval.metrics import f1_score, precision_score, recall_score

    logits, labels = evaluated
    pairs = [
        [(label_names[gold], label_names[guess]) for gold, guess in zip(row, guesses, strict=True) if gold != -100]
        for row, guesses in zip(labels, np.argmax(logits, axis=-1), strict=True)
    ]
    gold, guessed = ([[pair[side] for pair in row] for row in pairs] for side in (0, 1))
    scores = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    return {f"overall_{name}": float(score(gold, guessed)) for name, score in scores.items()}


def exchanged(evaluated: Any) -> dict[str, float]:
    """The bug: predictions and labels are exchanged, so precision is recall."""
    scores = compute_metrics(evaluated)
    return {**scores, "overall_precision": scores["overall_recall"], "overall_recall": scores["overall_precision"]}


def decoded(evaluated: Any) -> tuple[list[str], list[str]]:
    """Decode predictions and labels as the course does."""
    predictions, labels = evaluated
    labels = np.where(labels != -100, labels, tokenizer.pad_token_id)
    texts = [tokenizer.batch_decode(ids, skip_special_tokens=True) for ids in (predictions, labels)]
    return texts[0], texts[1]


def bleu_metrics(evaluated: Any) -> dict[str, float]:
    """Score translations with sacreBLEU, rounded as run_translation does."""
    import sacrebleu

    predictions, references = decoded(evaluated)
    score = sacrebleu.corpus_bleu(predictions, [references]).score
    return {"bleu": round(score, 4), "gen_len": 7.0}


def bleu_of_padding(evaluated: Any) -> dict[str, float]:
    """The bug: special tokens are decoded too, so padding counts as words."""
    import sacrebleu

    predictions, labels = evaluated
    labels = np.where(labels != -100, labels, tokenizer.pad_token_id)
    texts = [tokenizer.batch_decode(ids, skip_special_tokens=False) for ids in (predictions, labels)]
    return {"bleu": sacrebleu.corpus_bleu(texts[0], [texts[1]]).score}


def rouge_metrics(evaluated: Any) -> dict[str, float]:
    """Score summaries with rouge-score, from 0 to 1."""
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = RougeScorer(kinds, use_stemmer=True)
    scores = [scorer.score(gold, guess) for guess, gold in zip(*decoded(evaluated), strict=True)]
    return {kind: sum(each[kind].fmeasure for each in scores) / len(scores) for kind in kinds}
